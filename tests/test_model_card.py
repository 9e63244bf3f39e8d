"""The README.md of an exported model: terms of the base, where it comes from, and nothing that is not known."""

from __future__ import annotations

import ast
import math
import re

import pytest
import yaml

from socratic_mlflow.bootstrap import Interval
from socratic_mlflow.export_command import add_notice
from socratic_mlflow.merging import Likeness
from socratic_mlflow.model_card import Base, Card, base_for_card
from socratic_mlflow.origin import Origin


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("google/gemma-2-2b-jpn-it", "gemma"),
        ("google/gemma-3-1b-it", "gemma"),
        ("google/gemma-3n-E2B-it", "gemma"),
        ("somebody/their-gemma-2b-chat", "gemma"),
        ("google/gemma-4-e2b-it", "unknown"),
        ("Qwen/Qwen3-0.6B", "unknown"),
        ("embedded", "mit"),
    ],
)
def test_the_licence_of_the_base_is_told_and_never_guessed(name, licence):
    card = Card(base_for_card(name, "0123abcd"), Origin(), "socratic", [1])
    data = yaml.safe_load(card.text().split("---\n")[1])
    assert data["license"] == licence
    assert data["base_model"] == name
    if licence == "gemma":
        assert "ai.google.dev/gemma/terms" in card.text()
    if licence == "unknown":
        assert "look them up" in card.text()


def test_a_gemma_base_brings_the_notice_that_its_terms_want(tmp_path):
    add_notice(Base("google/gemma-2-2b-jpn-it", "abc", False), tmp_path)
    assert "Gemma is provided under and subject to the Gemma Terms of Use" in (tmp_path / "NOTICE").read_text()


def test_a_hub_base_is_named_with_its_commit():
    card = Card(Base("google/gemma-2-2b-jpn-it", "6b046bbc", False), Origin(), "socratic", [1, 107]).text()
    assert "from_pretrained('google/gemma-2-2b-jpn-it', revision='6b046bbc')" in card
    assert "eos_token_id=[1, 107]" in card


def test_what_is_not_known_is_not_told():
    origin = Origin(scores={"socratic_style": Interval(0.25, math.nan, math.nan)})
    text = Card(Base("x", "abc", True), origin, "socratic", [1]).text()
    assert "| style | 0.250 |" in text
    assert "nan" not in text
    assert "## Training" not in text
    assert "Data: dialogues, not known" in text


def test_texts_from_elsewhere_cannot_break_the_card():
    alike = Likeness("float32", 1e-7, 1.0, 9, (("a|b\n# c", "d\ne", "f"),), "nf4 4-bit", (0.5, 0.25))
    origin = Origin(
        run_id="run`\n# run",
        version="models:/name/1",
        step="1\n# step",
        data_digest="abc\n---\nlicense: mit",
        evaluated=("one\ntwo",),
    )
    text = Card(Base("x", "abc`\n# revision", True), origin, "so\n# style", [1], alike).text()
    assert [line for line in text.split("\n") if line.startswith("# ")] == ["# name"]
    assert "| a\\|b # c | d e | f |" in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"
    assert "- one two" in text
    assert "run `run' # run`" in text
    assert "SHA-256 `abc' # revision`" in text


@pytest.mark.parametrize("revision", ['main")\nimport os; os.system("id")\n#', "main'\n```\n# \u2028", "STOP WHERE LOAD"])
def test_a_revision_never_becomes_code(revision):
    text = Card(Base("google/gemma-2-2b-jpn-it", revision, False), Origin(), "socratic", [1]).text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    called = [part for part in ast.walk(ast.parse(code)) if isinstance(part, ast.Call)]
    given = {word.arg: word.value.value for part in called for word in part.keywords if word.arg == "revision"}
    assert given == {"revision": revision}
    imported = [part for part in ast.walk(ast.parse(code)) if isinstance(part, ast.Import | ast.ImportFrom)]
    assert {part.module for part in imported} == {"peft", "transformers"}
    assert f"revision `{' '.join(revision.split()).replace('`', chr(39))}`" in text


def test_what_could_not_be_scored_is_left_out():
    alike = Likeness("float32", 1e-7, 1.0, 9, (("a", "b", "c"),), "nf4 4-bit", None)
    text = Card(Base("x", "abc", True), Origin(), "", [1], alike).text()
    assert "0 of 1 replies are the same.\n" in text
    assert "mean style" not in text
    assert "in a speaking style, fine-tuned" in text


def test_secrets_stay_out_of_the_card(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret-value-1234")
    origin = Origin(params={"training.seed": "s3cret-value-1234"})
    assert "s3cret" not in Card(Base("x", "abc", True), origin, "socratic", [1]).text()
