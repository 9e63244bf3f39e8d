"""Nonsense in a field is refused by its name, value and allowed range, in one line, before anything heavy is imported."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from socratic_mlflow.config import Config, RegistryConfig, TrainingConfig, allowed, flatten, with_values
from socratic_mlflow.options import Option, build_config, options, parse_values

INTEGERS = [option for option in options() if option.type is int]
FLOATS = [option for option in options() if option.type is float]
SWITCHES = [option for option in options() if option.type is bool]
CHOICES = [option for option in options() if option.spec.metadata["choices"]]
TEXTS = [option for option in options() if option.type is str and option not in CHOICES]
NO_INTEGER = [
    "",
    " ",
    "many",
    "1.0",
    "1e3",
    "nan",
    "inf",
    "true",
    "False",
    "１",
    "٣",
    "1_000",
    "0x10",
    "1,000",
    "½",
    "9" * 5000,
]
NO_NUMBER = ["", " ", "many", "true", "１", "0.1_0", "0x1p3", "1,5", "½", "1e", "--1", "１e-3"]
OUT_OF_ALL = ["nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "-1", "-0.001", "1" + "0" * 30, "9" * 5000]


def by_key(option: Option) -> str:
    return option.key


def refused(option: Option, text: str, where: Path) -> str:
    """The line that refuses `text` as a flag; under the dotted key and in YAML it is the same one."""
    lines = set()
    for name in (option.flag, option.key):
        with pytest.raises(ValueError) as caught:
            parse_values({name: text})
        lines.add(str(caught.value))
    assert len(lines) == 1
    line = lines.pop()
    (where / "my.yaml").write_text(yaml.safe_dump({option.key: text}, width=10**6), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        build_config({}, str(where / "my.yaml"))
    assert str(caught.value).removeprefix(f"{where / 'my.yaml'}:1: ") == line
    assert len(line.splitlines()) == 1
    assert len(line) < 600
    assert option.key in line
    assert allowed(option.spec) in line
    return line


@pytest.mark.parametrize("option", INTEGERS + FLOATS, ids=by_key)
def test_every_number_has_both_ends(option: Option) -> None:
    meta = option.spec.metadata
    assert meta["high"] is not None
    assert (meta["low"] is None) != (meta["above"] is None)
    assert meta["high"] < 2**53


@pytest.mark.parametrize("option", INTEGERS, ids=by_key)
def test_what_is_no_whole_number_is_refused(option: Option, tmp_path: Path) -> None:
    for text in NO_INTEGER:
        line = refused(option, text, tmp_path)
        assert "it takes a whole number" in line
        assert text[:50] in line


@pytest.mark.parametrize("option", FLOATS, ids=by_key)
def test_what_is_no_number_is_refused(option: Option, tmp_path: Path) -> None:
    for text in NO_NUMBER:
        assert f"is {text!r}; it takes a number" in refused(option, text, tmp_path)


@pytest.mark.parametrize("option", FLOATS, ids=by_key)
def test_a_number_out_of_every_range_is_refused(option: Option, tmp_path: Path) -> None:
    for text in OUT_OF_ALL:
        assert f"{option.key} is {float(text)!r}; allowed: " in refused(option, text, tmp_path)


@pytest.mark.parametrize("option", INTEGERS, ids=by_key)
def test_a_whole_number_just_outside_is_refused_and_the_outermost_taken(option: Option, tmp_path: Path) -> None:
    low, high = int(option.spec.metadata["low"]), int(option.spec.metadata["high"])
    for value in (low - 1, high + 1, -(10**30), 10**30, 10**60):
        assert f"{option.key} is {value}; allowed: " in refused(option, str(value), tmp_path)
    for value in (low, high):
        assert parse_values({option.flag: str(value)}) == {option.key: value}


@pytest.mark.parametrize("option", FLOATS, ids=by_key)
def test_a_number_just_outside_is_refused_and_the_outermost_taken(option: Option, tmp_path: Path) -> None:
    low, above, high = (option.spec.metadata[name] for name in ("low", "above", "high"))
    first = low if above is None else math.nextafter(above, math.inf)
    for value in (math.nextafter(first, -math.inf), math.nextafter(high, math.inf)):
        assert f"{option.key} is {value!r}; allowed: " in refused(option, repr(float(value)), tmp_path)
    for value in (first, high):
        assert parse_values({option.flag: repr(float(value))}) == {option.key: value}


@pytest.mark.parametrize("option", SWITCHES, ids=by_key)
def test_a_switch_takes_no_number_and_no_other_word(option: Option, tmp_path: Path) -> None:
    for text in ("2", "-1", "", "maybe", "nan", "１", "true!", "y", "t"):
        assert f"is {text!r}; it takes true or false" in refused(option, text, tmp_path)


@pytest.mark.parametrize("option", CHOICES, ids=by_key)
def test_a_choice_takes_its_own_words_only(option: Option, tmp_path: Path) -> None:
    first = option.spec.metadata["choices"][0]
    for text in (first.upper(), f"{first}x", "0", "nan", "x" * 5000):
        assert text[:50] in refused(option, text, tmp_path)


@pytest.mark.parametrize("option", TEXTS, ids=by_key)
@pytest.mark.parametrize("text", ["", " ", "\u3000", "a\x00b", "a\nb", "\x1b[31m", "a\x7f", "\udc80", "x" * 5000])
def test_text_is_not_empty_not_endless_and_has_no_control_characters(option: Option, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_values({option.flag: text})
    line = str(caught.value)
    assert option.key in line
    assert repr(text)[:50] in line
    assert len(line.splitlines()) == 1
    assert len(line) < 400
    line.encode()


@pytest.mark.parametrize("option", TEXTS, ids=by_key)
def test_text_in_any_script_is_taken(option: Option) -> None:
    for text in ("a", "日本語 の-ファイル_1", "é", "x" * 85, "🏛"):
        assert parse_values({option.flag: f" {text} "}) == {option.key: text}


@pytest.mark.parametrize(
    "name",
    ["a/b", "a:b", "a@champion", "a?b", "a#b", "a%20b", "a\\b", ".", "..", "...", "n" * 256, "名" * 86, " a", "a ", "a\tb"],
)
def test_a_model_name_that_no_store_or_address_takes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^registry\.registered_model_name is .*; allowed: ") as caught:
        RegistryConfig(registered_model_name=name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["socratic-gemma", "a", "n" * 255, "名" * 85, "a b", ".a", "a.b_c+d~1", "m-1"])
def test_other_model_names_are_taken(name: str) -> None:
    assert RegistryConfig(registered_model_name=name).registered_model_name == name


@pytest.mark.parametrize("option", options(), ids=by_key)
@pytest.mark.parametrize(
    "value", [None, [], {}, b"1", 1j, object, "1", 1.5, 1, True, 10**400, 10**5000], ids=lambda value: type(value).__name__
)
def test_a_section_takes_no_value_of_another_type(option: Option, value: Any) -> None:
    """As a served model's stored settings, say, could hold one."""
    fits = type(value) is option.type or (option.type is float and type(value) is int)
    small = not isinstance(value, int) or value < 10**400
    try:
        assert flatten(with_values(Config(), {option.key: value}))[option.key] == value
    except ValueError as error:
        assert str(error).startswith(f"{option.key} is ")
        assert "; allowed: " in str(error)
        assert len(str(error)) < 600
        assert allowed(option.spec) in str(error)
    else:
        assert fits
        assert small


def test_a_switch_is_no_number() -> None:
    with pytest.raises(
        ValueError, match=r"^training\.epochs is True; allowed: a whole number at least 1 and at most 100000$"
    ):
        TrainingConfig(epochs=True)
    with pytest.raises(ValueError, match=r"^training\.gradient_checkpointing is 1; allowed: true or false$"):
        TrainingConfig(gradient_checkpointing=1)  # type: ignore[arg-type]
    assert TrainingConfig(weight_decay=0).weight_decay == 0


def test_an_attention_kernel_that_cannot_train_here_is_refused_before_the_training(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny
    import torch

    from socratic_mlflow.model import attach_adapter

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    base, config = tiny.quantized(bases["gemma"], model__attn_implementation="flex_attention")
    with pytest.raises(
        ValueError, match=r"^model\.attn_implementation is 'flex_attention'; it trains on a GPU only, .*eager"
    ):
        attach_adapter(base, config)


HEAVY = "import sys\nfrom socratic_mlflow.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n" + (
    "    print(*sorted({'torch', 'transformers', 'mlflow', 'peft'} & sys.modules.keys()), file=sys.stdout)\n"
)


@pytest.mark.parametrize("command", [["train"], ["evaluate", "base"], ["check-data", "bundled"]])
@pytest.mark.parametrize("field", ["max_new_tokens=0", "bnb_4bit_quant_type=int4", "base_model="])
def test_a_wrong_value_is_refused_before_torch_is_imported(command: list[str], field: str, tmp_path: Path) -> None:
    """With the preset `auto`, too, which asks for a GPU."""
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *command, f"--{field}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert field.partition("=")[0] in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["training: {lora_r: 0}", "lora_r: 0", "learning_rate: .inf", "seed: 1e400", "epochs: [3]"]
)
def test_a_wrong_file_is_refused_before_torch_is_imported(text: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, "train", "--config", "my.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "\n")
    assert "error: my.yaml:1: " in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["my.yaml"]
