"""YAML files of fields: what they may look like, and that an error names the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from socratic_mlflow.options import build_config, read_yaml


def written(folder: Path, text: str | bytes) -> str:
    file = folder / "my.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(file)


@pytest.mark.parametrize(
    "text",
    [
        "training:\n  learning_rate: 1e-3\n",
        "training.learning_rate: 1e-3\n",
        "learning_rate: 1e-3\n",
        "learning_rate: '0.001'\n",
        "# a comment\n\nlearning_rate: 1.0e-03   # another\n",
        "{learning_rate: 0.001}",
        "\ufefflearning_rate: 0.001\r\n",
    ],
)
def test_sections_dotted_keys_and_flags_mean_the_same(tmp_path: Path, text: str) -> None:
    assert read_yaml(written(tmp_path, text)) == {"training.learning_rate": 0.001}


@pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n", "epochs: default\n"])
def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path, text: str) -> None:
    assert build_config({"preset": "embedded"}, written(tmp_path, text)) == build_config({"preset": "embedded"})


def test_text_stays_text(tmp_path: Path) -> None:
    path = written(tmp_path, "revision: 0123\ndata: 2026-11-21\ntrust_remote_code: no\n")
    assert read_yaml(path) == {"model.revision": "0123", "data.path": "2026-11-21", "model.trust_remote_code": False}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("epochs: 3\nepohcs: 3\n", 2, "unknown field 'epohcs'; did you mean epochs?"),
        ("training:\n  epochs: 3\n  lerning_rate: 1\n", 3, "unknown field 'training.lerning_rate'; did you mean training."),
        ("seed: 1\n\ntraining:\n  epochs: many\n", 4, "epochs (training.epochs) is 'many'; it takes a whole number"),
        ("training:\n  epochs: 0\n", 2, "training.epochs is 0; allowed: at least 1"),
        ("learning_rate: .nan\n", 1, "learning_rate"),
        ("lora:\n  bias: some\n", 2, "lora.bias is 'some'; allowed: one of none, all, lora_only"),
        ("base_model:\n", 1, "base_model (model.base_model) is ''; it takes text that is not empty"),
        ("epochs: null\n", 1, "epochs (training.epochs) is ''; it takes a whole number"),
        ("seed: 2026-13-45\n", 1, "seed (training.seed) is '2026-13-45'"),
        ("target_modules:\n  - q_proj\n  - v_proj\n", 2, "expected one value, found a list"),
        ("training:\n  epochs: {a: 1}\n", 2, "expected one value, found a mapping"),
        ("epochs: 3\n? [a]\n: 3\n", 2, "expected one value, found a list"),
        ("- epochs: 3\n", 1, "found a list"),
        ("epochs\n", 1, "found a single value"),
        ("epochs: [1\nseed: 2\n", 2, "not valid YAML"),
        ("epochs: 3\n\tseed: 2\n", 2, "not valid YAML"),
        ("epochs: 3\nseed: \x00\n", 2, "not valid YAML"),
        ("epochs: *unknown\n", 1, "not valid YAML"),
        ("epochs: 3\n---\nseed: 3\n", 2, "not valid YAML"),
        ("[" * 5000, 1, "not valid YAML"),
    ],
)
def test_an_error_names_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        build_config({}, path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere.yaml", "No such file or directory"), (".", "Is a directory"), ("a" * 300, "too long")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    path = str(tmp_path / name)
    with pytest.raises(ValueError) as caught:
        build_config({}, path)
    assert str(caught.value).startswith(f"{path}: cannot read the configuration file (")
    assert reason in str(caught.value)


@pytest.mark.parametrize("data", ["問い".encode("shift_jis"), "epochs: 3".encode("utf-16")])
def test_a_file_in_another_encoding_is_named(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    with pytest.raises(ValueError) as caught:
        build_config({}, path)
    assert str(caught.value) == f"{path}: cannot read the configuration file (not UTF-8 text)"


def test_a_flag_mends_no_wrong_yaml(tmp_path: Path) -> None:
    path = written(tmp_path, "epochs: 0\n")
    with pytest.raises(ValueError, match=r"training\.epochs is 0"):
        build_config({"epochs": "3"}, path)
