"""The YAML of a sweep: what may be searched, and that an error is one line with file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from socratic_mlflow.options import by_name
from socratic_mlflow.presets import PRESETS
from socratic_mlflow.sweep_space import Dimension, read_space


def written(folder: Path, text: str) -> str:
    file = folder / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_range_a_step_a_log_scale_and_choices(tmp_path: Path) -> None:
    text = (
        "learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "lora_dropout: {low: 0, high: 0.2, step: 0.05}\n"
        "lora.r: {low: 4, high: 64}\n"
        "lr_scheduler_type:\n  choices: [cosine, linear]\n"
        "packing: {choices: [true, no]}\n"
    )
    assert read_space(written(tmp_path, text), "embedded") == [
        Dimension("training.learning_rate", "learning_rate", float, (), 1e-4, 1e-2, None, True),
        Dimension("lora.dropout", "lora_dropout", float, (), 0.0, 0.2, 0.05),
        Dimension("lora.r", "lora_r", int, (), 4, 64),
        Dimension("training.lr_scheduler_type", "lr_scheduler_type", str, ("cosine", "linear")),
        Dimension("training.packing", "packing", bool, (True, False)),
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_ships_a_space_around_its_own_values(preset: str) -> None:
    space = read_space("default", preset)
    assert [each.flag for each in space] == ["learning_rate", "lora_r", "lora_alpha", "lora_dropout", "weight_decay"]
    for each in space:
        own = PRESETS[preset].get(each.key, by_name()[each.key].spec.default)
        assert own in each.choices or each.low <= own <= each.high, each


def test_a_field_that_is_fixed_is_not_searched() -> None:
    space = read_space("default", "embedded", {"lora.r", "training.learning_rate"})
    assert [each.flag for each in space] == ["lora_alpha", "lora_dropout", "weight_decay"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("lora_r: {choices: [8]}\nlerning_rate: {low: 1, high: 2}\n", 2, "unknown field 'lerning_rate'; did you mean"),
        ("learning_rate: {low: 0, high: 0.1}\n", 1, "learning_rate: training.learning_rate is 0.0; allowed: above 0"),
        ("learning_rate: {low: 0.1, high: 3}\n", 1, "learning_rate: training.learning_rate is 3.0; allowed: above 0"),
        ("learning_rate: {low: 0.1, high: 0.01}\n", 1, "learning_rate: low 0.1 is not below high 0.01"),
        ("weight_decay: {low: 0, high: 0.1, log: true}\n", 1, "weight_decay: log: true takes a low above 0, found 0"),
        ("learning_rate: {low: 0.1, high: 0.2, log: true, step: 0.1}\n", 1, "log and step exclude each other"),
        ("learning_rate: {low: 0.1, high: 0.2, log: perhaps}\n", 1, "log is 'perhaps'; it takes true or false"),
        ("learning_rate: {low: 0.1, high: 0.2, step: 5}\n", 1, "step 5 does not go into the range from 0.1 to 0.2"),
        ("lora_dropout: {low: 0, high: 0.2, step: 1e-300}\n", 1, "step 1e-300 does not go into the range from 0 to 0.2"),
        ("lora_r: {low: 4, high: 8, step: 0.5}\n", 1, "lora_r: step is '0.5'; it takes a whole number above 0"),
        ("lora_r: {low: 4, high: 8, step: -1}\n", 1, "lora_r: step is '-1'; it takes a whole number above 0"),
        ("lora_r: {low: 4, high: many}\n", 1, "lora_r: lora_r (lora.r) is 'many'; it takes a whole number"),
        ("lora_r: {choices: [8, 0]}\n", 1, "lora_r: lora.r is 0; allowed: at least 1"),
        ("lora_r: {choices: []}\n", 1, "lora_r: choices is empty"),
        ("lora_r: {choices: 8}\n", 1, "lora_r: an entry is {low: .., high: ..}"),
        ("lora_r: {low: [4], high: 8}\n", 1, "lora_r: an entry is {low: .., high: ..}"),
        ("lora_r: {low: 4}\n", 1, "lora_r: an entry is {low: .., high: ..}"),
        ("lora_r: {low: 4, high: 8, steps: 2}\n", 1, "lora_r: an entry is {low: .., high: ..}"),
        ("lora_r: 8\n", 1, "lora_r: an entry is {low: .., high: ..}"),
        ("optim: {low: 1, high: 2}\n", 1, "optim: is no number, so it takes choices"),
        ("optim: {choices: [adam]}\n", 1, "optim: training.optim is 'adam'; allowed: one of"),
        ("lora_r: {choices: [8]}\nlora.r: {choices: [4]}\n", 2, "lora_r is given twice"),
        ("output_dir: {choices: [a, b]}\n", 1, "output_dir is the same for all trials of a sweep"),
        ("max_new_tokens: {low: 8, high: 64}\n", 1, "max_new_tokens is the same for all trials of a sweep"),
        ("promote: {choices: [always]}\n", 1, "promote is the same for all trials of a sweep"),
        ("lora_r: {choices: [!!python/name:os.system 8]}\n", 1, "an entry is {low: .., high: ..}"),
        ("lora_r: [\n", 2, "not valid YAML"),
    ],
)
def test_an_error_is_one_line_with_file_line_and_field(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        read_space(file, "embedded")
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected 'field: {low: .., high: ..}' lines"),
        ("- lora_r\n", "expected 'field: {low: .., high: ..}' lines"),
        ("{}\n", "names nothing to search"),
        ("lora_r: {choices: [4, 8]}\n", "names nothing to search; all its fields are given as flags, which fixes them"),
        ("# x\n" * 20_000, "is larger than"),
    ],
)
def test_a_file_without_anything_to_search_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"space\.yaml: ") as caught:
        read_space(written(tmp_path, text), "embedded", {"lora.r"})
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such file"):
        read_space(str(tmp_path / "nowhere.yaml"), "embedded")
