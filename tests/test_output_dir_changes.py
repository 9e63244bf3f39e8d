"""What may change between two starts in one output folder, and what would make the training another one."""

from __future__ import annotations

import pytest
from output_dirs import CONFIG, DIGESTS, STORE, begun_output, changed, checkpoint, new_output, refusal  # noqa: F401

from socratic_mlflow.checkpoints import seal
from socratic_mlflow.config import flatten, with_values
from socratic_mlflow.identity import identity
from socratic_mlflow.output_dir import OutputDir

HARMLESS = {
    "run.preset": "gemma-2-2b-jpn-it",
    "run.output_dir": "elsewhere",
    "run.resume": "must",
    "registry.promote": "always",
    "registry.registered_model_name": "another",
    "training.epochs": 60,
    "training.max_steps": 4000,
    "training.eval_steps": 7,
    "training.eval_batch_size": 3,
    "training.save_total_limit": 1,
    "training.empty_cache_steps": 3,
    "training.gradient_checkpointing": not CONFIG.training.gradient_checkpointing,
    "training.dataloader_num_workers": 3,
    "training.dataloader_pin_memory": not CONFIG.training.dataloader_pin_memory,
    "evaluation.generation_batch_size": 3,
}


@pytest.mark.parametrize("key", HARMLESS)
def test_what_decides_nothing_may_change_and_is_told(begun: OutputDir, key: str) -> None:
    newest = checkpoint(begun, "checkpoint-40")
    config = with_values(CONFIG, {key: HARMLESS[key]})
    begun.check(config, STORE, DIGESTS)
    assert begun.changes(config) == {key: f"{flatten(CONFIG)[key]} -> {HARMLESS[key]}"}
    assert identity(config, DIGESTS) == identity(CONFIG, DIGESTS)
    begun.record(config)
    assert begun.newest_checkpoint() == str(newest)
    assert begun.changes(config) == {}


def other_value(value: object) -> object:
    """Another value of the same type, near enough to lie in the field's range."""
    if isinstance(value, bool):
        return not value
    return value * 2 if isinstance(value, int) else value * 0.5 if isinstance(value, float) else f"{value}x"


CHOICES = {
    "model.attn_implementation": "sdpa",
    "training.lr_scheduler_type": "linear",
    "training.optim": "adamw_bnb_8bit",
    "lora.bias": "all",
    "quantization.bnb_4bit_quant_type": "fp4",
    "quantization.bnb_4bit_compute_dtype": "bfloat16",
    "evaluation.metric_for_best_model": "socratic_tone",
}
FIXED = [key for key in flatten(CONFIG) if key not in HARMLESS and not key.startswith(("run.", "registry."))]


@pytest.mark.parametrize("key", FIXED)
def test_every_other_field_is_refused_with_its_old_and_new_value(begun: OutputDir, key: str) -> None:
    before = flatten(CONFIG)[key]
    after = CHOICES.get(key, other_value(before))
    config = with_values(CONFIG, {key: after})
    assert refusal(begun, config) == (
        f"{begun.folder} holds another training, which cannot go on with {key} {before} -> {after}; "
        "choose another output_dir"
    )
    assert begun.changes(config) == {}
    assert identity(config, DIGESTS) != identity(CONFIG, DIGESTS)


def test_all_that_differs_stands_in_one_line(begun: OutputDir) -> None:
    config = changed(lora__r=8, data__path="b.json", training__epochs=60)
    assert "cannot go on with data.path bundled -> b.json, lora.r 16 -> 8; choose" in refusal(begun, config)
    assert begun.changes(config) == {"training.epochs": f"{CONFIG.training.epochs} -> 60"}


def test_a_finished_training_is_not_registered_under_another_name(begun: OutputDir) -> None:
    begun.record(CONFIG, model="models:/socratic-gemma/1")
    begun.check(changed(registry__promote="always"), STORE, DIGESTS)
    message = refusal(begun, changed(registry__registered_model_name="another"))
    assert "registry.registered_model_name socratic-gemma -> another" in message


def test_where_nothing_was_begun_nothing_has_changed(output: OutputDir) -> None:
    assert output.changes(CONFIG) == {}


@pytest.mark.parametrize(
    ("values", "ends_before"),
    [
        ({"training__epochs": 5}, False),
        ({"training__epochs": 4}, True),
        ({"training__max_steps": 40}, False),
        ({"training__max_steps": 39}, True),
        ({"training__max_steps": 40, "training__epochs": 1}, False),
    ],
    ids=str,
)
def test_a_training_may_be_shortened_to_where_it_is(begun: OutputDir, values: dict[str, int], ends_before: bool) -> None:
    checkpoint(begun, "checkpoint-40", epoch=5.0000000001)
    if not ends_before:
        begun.check(changed(**values), STORE, DIGESTS)
        return
    (key, value) = next(iter(values.items()))
    field = key.replace("__", ".")
    assert refusal(begun, changed(**values)) == (
        f"{begun.folder} holds a training at step 40 (epoch 5), which lies behind the end of one with "
        f"{field} {flatten(CONFIG)[field]} -> {value}; give more or choose another output_dir"
    )


def test_only_the_checkpoint_that_the_training_goes_on_from_limits_its_length(begun: OutputDir) -> None:
    checkpoint(begun, "checkpoint-8", epoch=1.0)
    checkpoint(begun, "checkpoint-40", complete=False)
    begun.check(changed(training__epochs=1), STORE, DIGESTS)


@pytest.mark.parametrize("data", ["{}", "[]", '{"global_step": Infinity, "epoch": 1}', '{"global_step": 1, "epoch": [1]}'])
def test_a_checkpoint_that_does_not_say_where_it_is_is_refused(begun: OutputDir, data: str) -> None:
    folder = checkpoint(begun, "checkpoint-40", complete=False)
    (folder / "trainer_state.json").write_text(data, encoding="utf-8")
    seal(folder, identity(CONFIG, DIGESTS))
    begun.check(CONFIG, STORE, DIGESTS)
    assert "trainer_state.json: does not say how far" in refusal(begun, changed(training__epochs=60))
