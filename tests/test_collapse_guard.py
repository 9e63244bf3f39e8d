"""One sentence for everything scores 1.0 and must lose to honest replies at 0.7: in real trainings.

Only what the model says is replaced; trainings, checkpoints, scores, runs and versions are real.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
import stores
import tiny
import training
from mlflow import MlflowClient
from replies import COLLAPSED, LOOPS, ONE_SENTENCE, QUESTIONS, REPLIES, SAME_OPENING, SWAPPED, WHOLLY, as_generated, scores
from safetensors.torch import load_file

from socratic_mlflow import evaluation


def test_what_the_replies_of_these_tests_score():
    assert scores(ONE_SENTENCE)["socratic_style"] == 1.0
    assert 0.6 < scores(REPLIES)["socratic_style"] < 0.8
    assert scores(REPLIES)["hollow_share"] == scores(SAME_OPENING)["hollow_share"] == 0.0
    assert {name: scores(replies)["hollow_share"] for name, replies in COLLAPSED.items()} == {
        "one sentence": 1.0,
        # 美しさ leaves a しさ behind that the others lack.
        "swapped nouns": 0.9,
        "loops": 1.0,
        "empty": 1.0,
    }
    for replies in (SWAPPED, LOOPS):
        assert scores(replies)["socratic_style"] > scores(REPLIES)["socratic_style"]


@pytest.fixture
def train(sqlite_store, tmp_path, training_inputs, monkeypatch):
    """Train for two or four steps with an evaluation at every other one, which finds the replies given, a list for each."""
    (tmp_path / "questions.txt").write_text("\n".join(QUESTIONS), encoding="utf-8")
    generate = evaluation.generate

    def train(*told, output="out", fails=False, **changes):
        turns = iter(told)

        def say(model, chat, conversations, *arguments):
            if len(conversations) != len(QUESTIONS):
                return generate(model, chat, conversations, *arguments)
            return as_generated(next(turns))

        steps = {"max_steps": 2 * len(told) - 2, "eval_steps": 2, "questions": tmp_path / "questions.txt"}
        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "generate", say)
            code, printed = training.command(
                tmp_path, training.arguments(training_inputs, output=output, **steps | changes)
            )
        assert code == int(fails)
        assert (next(turns, None) is None) is not fails
        return printed

    return train


def same(one, other):
    weights, others = load_file(one / "adapter_model.safetensors"), load_file(other / "adapter_model.safetensors")
    return weights.keys() == others.keys() and all(weights[name].equal(others[name]) for name in weights)


def chosen(folder):
    """The step of the checkpoint that became best_adapter; also what the Trainer itself holds for the best."""
    checkpoints = {int(path.name.split("-")[1]): path for path in (folder / "checkpoints").iterdir()}
    (step,) = [step for step, path in checkpoints.items() if same(path, folder / "best_adapter")]
    state = json.loads((checkpoints[max(checkpoints)] / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["best_global_step"] == step
    assert state["best_model_checkpoint"].endswith(f"checkpoint-{step}")
    return step


@pytest.mark.parametrize(
    ("told", "honest"),
    [((REPLIES, ONE_SENTENCE, REPLIES), 4), ((REPLIES, REPLIES, ONE_SENTENCE), 2)],
    ids=["before", "after"],
)
def test_one_sentence_for_everything_loses_to_honest_replies(train, tmp_path, told, honest):
    printed, collapsed = train(*told), 6 - honest
    assert chosen(tmp_path / "out") == honest
    run = stores.only_run()
    styles = {p.step: p.value for p in MlflowClient().get_metric_history(run.info.run_id, "eval/socratic_style")}
    assert styles[collapsed] == 1.0
    assert 0.6 < styles[honest] < 0.8
    # The registered version is the honest one, bit for bit.
    version = training.version(training.MODEL, 1)
    assert (version.tags["step"], version.tags["collapsed"]) == (str(honest), "no")
    assert float(version.tags["eval.socratic_style"]) == pytest.approx(styles[honest])
    stored = mlflow.artifacts.download_artifacts(f"models:/{training.MODEL}/1")
    assert same(tmp_path / "out" / "best_adapter", Path(stored, "artifacts", "best_adapter"))
    # The run says so: tag, printed lines, rows of the samples, summary.
    assert run.data.tags["collapsed"] == f"at steps {collapsed}; at {collapsed}: {WHOLLY}"
    lines = printed.splitlines()
    noted = lines.index(f"    collapsed: {WHOLLY}; it will not be taken over a checkpoint that has not collapsed")
    assert lines[noted - 1].startswith(f"  evaluation, step {collapsed}/4: style 1.000 (")
    assert sum("collapsed" in line for line in lines) == 1
    assert f"best   step {honest}: style {styles[honest]:.3f}" in printed
    rows = stores.table(run.info.run_id, f"samples/step_{collapsed:06d}.json")
    assert {row["hollow"] for row in rows} == {"same to another question"}
    assert run.data.metrics["summary/best_style"] == styles[honest]


def test_a_training_without_a_collapse_has_no_such_tag(train, tmp_path):
    printed = train(REPLIES, SAME_OPENING)
    assert "collapsed" not in stores.only_run().data.tags
    assert "collapsed" not in printed


def test_a_collapsed_base_is_told_of_and_stands_in_no_ones_way(train, tmp_path):
    printed = train(ONE_SENTENCE, SAME_OPENING)
    assert chosen(tmp_path / "out") == 2
    assert f"    collapsed: {WHOLLY}\n" in printed
    assert training.version(training.MODEL, 1).tags["collapsed"] == "no"


def test_a_training_that_goes_on_remembers_who_was_honest(train, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("socratic_mlflow.callback.SocraticMlflowCallback.on_log", at_step(3, RuntimeError("power cut")))
        train(REPLIES, REPLIES, ONE_SENTENCE, fails=True)
    assert "RuntimeError: power cut" in capsys.readouterr().err
    printed = train(ONE_SENTENCE, max_steps=4)
    assert "going on from" in printed
    assert chosen(tmp_path / "out") == 2
    assert stores.only_run().data.tags["collapsed"] == f"at steps 4; at 4: {WHOLLY}"


def at_step(step, error):
    def on_log(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise error

    return on_log


@pytest.mark.parametrize(("metric", "step"), [("socratic_style", 2), ("socratic_tone", 4)])
def test_the_metric_chooses_where_the_scores_disagree(train, tmp_path, metric, step):
    # なるほど。 is a sentence without style, and an opening that the tone likes.
    assert scores(REPLIES)["socratic_style"] > scores(SAME_OPENING)["socratic_style"]
    assert scores(REPLIES)["socratic_tone"] < scores(SAME_OPENING)["socratic_tone"]
    train(REPLIES, REPLIES, SAME_OPENING, metric_for_best_model=metric)
    assert chosen(tmp_path / "out") == step
    run = stores.only_run()
    assert run.data.params["evaluation.metric_for_best_model"] == metric
    assert f"`eval/{metric}`" in run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize(("learning_rate", "lowest"), [(0.01, 4), (1.0, 2)], ids=["loss falls", "loss rises"])
def test_equal_scores_go_to_the_lower_loss(train, tmp_path, learning_rate, lowest):
    # A base that knows the dialogues already: steps that are too long spoil it.
    model, chat = tiny.talker()
    for part in (model, chat.tokenizer):
        part.save_pretrained(tmp_path / "base")
    train(REPLIES, REPLIES, REPLIES, base_model=tmp_path / "base", learning_rate=learning_rate)
    history = MlflowClient().get_metric_history(stores.only_run().info.run_id, "eval/loss")
    losses = {point.step: point.value for point in history if point.step}
    assert min(losses, key=losses.__getitem__) == lowest
    assert chosen(tmp_path / "out") == lowest


def test_an_honest_training_takes_over_from_a_collapsed_one_and_stays(train):
    printed = train(REPLIES, ONE_SENTENCE, output="first")
    assert "version 1 is now Production and @champion: there was no champion yet" in printed
    assert f", though it has collapsed: {WHOLLY}" in printed
    printed = train(REPLIES, REPLIES, output="second", seed=1)
    assert f"version 2 is now Production and @champion: version 1 has collapsed ({WHOLLY}) and it has not" in printed
    printed = train(REPLIES, ONE_SENTENCE, output="third", seed=2, promote="always")
    assert f"version 3 is now Staging and @challenger: it has collapsed ({WHOLLY}) and version 2 has not" in printed
