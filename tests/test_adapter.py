"""LoRA on a quantized base: where it goes, that it alone trains, and on which base an adapter loads."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from socratic_mlflow.evaluation import Sampling, generate
from socratic_mlflow.model import attach_adapter, load_adapter, load_tokenizer, target_modules
from socratic_mlflow.tokens import ChatFormat

FAMILIES = tuple(tiny.FAMILIES)
PROJECTIONS = {
    "gemma": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "neox": ["query_key_value", "dense"],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("in_4bit", [True, False])
def test_all_lora_tensors_move_and_nothing_else_does(bases, family, in_4bit):
    base, config = tiny.quantized(bases[family], quantization__load_in_4bit=in_4bit)
    model = attach_adapter(base, config)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * 2 * len(PROJECTIONS[family])
    assert all("lora_" in name for name in trained)
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    chat = ChatFormat(load_tokenizer(config.model))
    tiny.learn(model, tiny.batch(chat, [tiny.dialogue(number) for number in range(3)]), steps=3)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == trained


def test_gradient_checkpointing_changes_no_gradient(bases):
    found = []
    for checkpointing in (False, True):
        base, config = tiny.quantized(bases["gemma"], training__gradient_checkpointing=checkpointing)
        torch.manual_seed(0)
        model = attach_adapter(base, config)
        assert base.is_gradient_checkpointing is checkpointing
        found.append(gradients(model, config))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def gradients(model, config):
    """Of a second step: in the first, half of LoRA's are zero."""
    inputs = tiny.batch(ChatFormat(load_tokenizer(config.model)), [tiny.dialogue(0), tiny.dialogue(1)])
    trained = [value for value in model.parameters() if value.requires_grad]
    with torch.no_grad():
        for value in trained:
            value.copy_(torch.linspace(-0.1, 0.1, value.numel()).reshape(value.shape))
    model.train()
    return torch.autograd.grad(model(**inputs).loss, trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_between_two_steps_changes_no_gradient(bases, family):
    base, config = tiny.quantized(bases[family])
    model = attach_adapter(base, config)
    before = gradients(model, config)
    chat = ChatFormat(load_tokenizer(config.model))
    generate(model, chat, [[{"role": "user", "content": "正義とは何でしょうか？"}]], Sampling(8), batch_size=1)
    model.eval()
    with torch.no_grad():
        model(**tiny.batch(chat, [tiny.dialogue(0)]))
    after = gradients(model, config)
    assert all(value.abs().sum() > 0 for value in before)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_projections_are_found(bases, family):
    assert target_modules(tiny.quantized(bases[family])[0], "auto") == PROJECTIONS[family]


def test_attention_projections_of_gpt2_are_found_and_train():
    base = GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2))
    model = attach_adapter(base, tiny.config("unused", quantization__load_in_4bit=False))
    assert target_modules(base, "auto") == ["c_attn", "c_proj"]
    tiny.learn(model, {"input_ids": torch.arange(20)[None], "labels": torch.arange(20)[None]}, steps=2)
    second = [value for name, value in model.named_parameters() if "lora_B" in name]
    assert len(second) >= 4
    assert all(value.abs().sum() > 0 for value in second)


def test_named_projections_are_taken_as_they_are(bases):
    base, _ = tiny.quantized(bases["gemma"])
    assert target_modules(base, "gate_proj, up_proj") == ["gate_proj", "up_proj"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("q_proj,w_proj", "names w_proj; this base has: .*down_proj.*q_proj"), (",", "names nothing; this base has: ")],
)
def test_projections_that_the_base_lacks_are_one_clear_line(bases, wanted, message):
    with pytest.raises(ValueError, match=message) as caught:
        target_modules(tiny.quantized(bases["gemma"])[0], wanted)
    assert "\n" not in str(caught.value)


def test_a_base_with_names_of_its_own_is_told_which_layers_it_has():
    base = torch.nn.ModuleDict({"mixer_in": torch.nn.Linear(2, 2), "mixer_out": torch.nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"names its attention otherwise; give some of: mixer_in, mixer_out$"):
        target_modules(base, "auto")


@pytest.fixture
def adapter(bases, tmp_path):
    base, config = tiny.quantized(bases["gemma"])
    model = attach_adapter(base, config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.fill_(0.05)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model


def test_an_adapter_loads_onto_a_new_base_as_it_was(bases, adapter):
    folder, trained = adapter
    base, _ = tiny.quantized(bases["gemma"])
    ids = {"input_ids": torch.arange(5, 25)[None]}
    plain = base(**ids).logits
    loaded = load_adapter(base, str(folder))
    assert not loaded.training
    trained.eval()
    assert torch.equal(loaded(**ids).logits, trained(**ids).logits)
    assert not torch.allclose(loaded(**ids).logits, plain)


@pytest.mark.parametrize(
    ("family", "shape"),
    [("gemma", {"width": 32}), ("gemma", {"layers": 1}), ("gemma", {"layers": 3}), ("neox", {"width": 64})],
    ids=["narrower", "shallower", "deeper", "another architecture"],
)
def test_an_adapter_on_a_base_of_another_shape_is_one_clear_line(bases, adapter, tmp_path, family, shape):
    other, _ = tiny.quantized(tiny.save_base(tmp_path / "other", family, **{"width": 64} | shape))
    with pytest.raises(
        ValueError, match=r"this adapter does not fit the base .*other; it was trained on .*gemma"
    ) as caught:
        load_adapter(other, str(adapter[0]))
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_adapter_is_one_clear_line(bases, tmp_path):
    with pytest.raises(ValueError, match=r"holds no adapter_model.safetensors; give the folder of a LoRA adapter"):
        load_adapter(tiny.quantized(bases["gemma"])[0], str(tmp_path))
