"""The base that ships here: built from this repository's text, reproducibly, and fit for what it is there for."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig

from socratic_mlflow.config import Config, ModelConfig
from socratic_mlflow.dialogues import read_dialogues, read_questions, split
from socratic_mlflow.evaluation import Sampling, StyleEvaluator
from socratic_mlflow.model import base_location, load_base, load_tokenizer, resolve_dtype
from socratic_mlflow.options import build_config
from socratic_mlflow.tokens import ChatFormat

BASE = Path(base_location("embedded"))


@pytest.fixture(scope="module")
def build(repository):
    """embedded_base/build.py as a module; it is a program, no part of the package."""
    spec = importlib.util.spec_from_file_location("embedded_base_build", repository / "embedded_base" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def talks(build):
    return build.conversations()


def test_the_shipped_tokenizer_is_rebuilt_from_the_repositorys_text(build, talks, tmp_path):
    build.train_tokenizer([message["content"] for talk in talks for message in talk]).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (BASE / name).read_text(encoding="utf-8"), name


def test_two_builds_give_the_same_bytes(build, talks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "conversations", lambda: talks[:14])
    monkeypatch.setattr(build, "KEPT_BACK", 4)
    monkeypatch.setattr(build, "VOCAB_SIZE", 500)
    for name in ("one", "two"):
        monkeypatch.setattr(sys, "argv", ["build.py", "--epochs", "1", "--out", str(tmp_path / name)])
        build.main()
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in BASE.iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert capsys.readouterr().out.count("SHA-256") == 2


def test_it_has_not_read_the_dialogues_that_are_held_out(talks):
    defaults = Config()
    _, held_out = split(read_dialogues("bundled").dialogues, defaults.data.test_size, defaults.training.seed)
    unseen = {message["content"] for dialogue in held_out for message in dialogue.messages}
    assert not unseen & {message["content"] for talk in talks for message in talk}


def test_it_has_not_read_the_questions_that_judge(talks):
    questions, _ = read_questions("bundled")
    assert not set(questions) & {message["content"] for talk in talks for message in talk}


def test_it_learns_to_answer_as_the_polite_side(build, talks):
    assert all(talk[0]["role"] == "user" and talk[-1]["role"] == "model" for talk in talks)
    talk = [{"role": role, "content": role + str(number)} for number in range(2) for role in ("user", "model")]
    assert build.exchanged(talk) == [{"role": "user", "content": "model0"}, {"role": "model", "content": "user1"}]


def test_it_is_a_small_gemma_2_in_safetensors():
    config = AutoConfig.from_pretrained(BASE)
    assert config.architectures == ["Gemma2ForCausalLM"]
    assert sorted(path.suffix for path in BASE.iterdir()) == [".jinja", ".json", ".json", ".json", ".json", ".safetensors"]
    assert (BASE / "model.safetensors").stat().st_size < 30e6
    assert config.vocab_size == len(load_tokenizer(ModelConfig(base_model="embedded")))


@pytest.fixture(scope="module", params=[True, False], ids=["NF4", "not quantized"])
def answers(request):
    """(metrics, rows) of the untrained base over the hundred bundled questions."""
    config = resolve_dtype(build_config({"preset": "embedded", "load_in_4bit": request.param}))
    questions, _ = read_questions("bundled")
    chat = ChatFormat(load_tokenizer(config.model))
    limits = config.evaluation
    evaluator = StyleEvaluator(chat, questions, Sampling(limits.max_new_tokens), limits.generation_batch_size)
    return evaluator(load_base(config.model, config.quantization))


def test_untrained_it_does_not_sound_like_socrates(answers):
    assert answers[0]["socratic_style"] < 0.1


def test_its_replies_are_whole_sentences_in_polite_japanese(answers):
    metrics, rows = answers
    assert metrics["loop_share"] < 0.1
    assert metrics["cut_off_share"] < 0.1
    assert metrics["empty_share"] == 0
    polite = [row for row in rows if re.search(r"(です|ます|ません|でした|ました|でしょう|ください)", row["reply"])]
    assert len(polite) > 0.9 * len(rows)
    japanese = [
        row for row in rows if re.fullmatch(r"[ぁ-んァ-ヶー一-龠々〇、。？！「」『』…・\s\d０-９A-Za-z]+", row["reply"])
    ]
    assert len(japanese) > 0.97 * len(rows)


def test_different_questions_get_different_replies(answers):
    assert len({row["reply"] for row in answers[1]}) > 0.8 * len(answers[1])
