"""The history of moves in the registry's tags, and moves that were cut off, edited or made by two at once."""

from __future__ import annotations

import itertools
import json
import re

import flaky
import pytest
import stores
from mlflow import MlflowClient
from versions import NAME, add, standing

from socratic_mlflow import cli
from socratic_mlflow.promotion_history import KEPT, Move, champions_before, moves
from socratic_mlflow.standing import move


def history():
    return moves(MlflowClient().get_registered_model(NAME).tags)


CALLS = ("registered-models/set-tag", "registered-models/alias", "transition-stage", "DELETE", "model-versions/set-tag")


@pytest.mark.parametrize("fate", [flaky.DROP, flaky.LOSE])
@pytest.mark.parametrize("call", CALLS)
def test_a_move_that_was_cut_off_at_any_call_is_shown_and_mended(sqlite_store, run, capsys, call, fate):
    add(0.2)
    add(0.3)
    run("promote", "1")
    run("promote", "2", "--stage", "Staging")
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        server.becomes(fate, only=call, times=1)
        assert cli.main(["promote", "2"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("socratic-mlflow: error: MLflow has stopped answering")
        assert error.count("\n") == 1
        assert any(call in made for made in server.calls)
    whole = standing() == {1: ("Archived", []), 2: ("Production", ["champion"])}
    recorded = [move.version for move in history() if move.stage == "Production"] == ["1", "2"]
    shown = run("models")
    assert ("warning: " in shown) == (recorded and not whole)
    assert "promote 2" in shown or whole or not recorded
    run("promote", "2")
    assert standing() == {1: ("Archived", []), 2: ("Production", ["champion"])}
    assert [move.version for move in history() if move.stage == "Production"] == ["1", "2"]
    assert "warning" not in run("models")
    run("rollback")
    assert standing() == {1: ("Production", ["champion"]), 2: ("Archived", [])}


@pytest.mark.parametrize("call", CALLS[:3])
def test_a_rollback_that_was_cut_off_is_completed_by_the_next_one(sqlite_store, run, capsys, call):
    for style in (0.1, 0.2, 0.3):
        run("promote", add(style))
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        server.becomes(flaky.DROP, only=call, times=1)
        assert cli.main(["rollback"]) == 1
    run("rollback")
    assert standing() == {1: ("Archived", []), 2: ("Production", ["champion"]), 3: ("Archived", [])}


def test_the_history_is_bounded_and_keeps_who_was_champion(sqlite_store, run):
    add(0.1)
    run("promote", "1")
    add(0.2)
    run("promote", "2")
    client = MlflowClient()
    for count in range(KEPT):
        move = '{"at": "2020-01-01T00:00:00Z", "what": "training", "version": "9", "stage": "Staging", "replaces": "", '
        client.set_registered_model_tag(NAME, f"history.{count + 3:06}.2020", move + '"why": "", "by": ""}')
    add(0.3)
    run("promote", "3", "--stage", "Staging")
    assert len([move for move in history() if move.stage == "Staging"]) == KEPT
    run("rollback")
    assert standing()[1] == ("Production", ["champion"])


MOVE = {"at": "", "what": "promote", "version": "1", "stage": "Production", "replaces": "", "why": "", "by": ""}
EDITED = ["", "[]", "{", '{"at": 1}', "[" * 5000, "null", json.dumps(MOVE | {"version": "1\n"})]
EDITED += [json.dumps(MOVE | change) for change in ({"stage": "Prod"}, {"replaces": "x"}, {"forced": "no"}, {"more": ""})]


def test_tags_that_are_no_moves_are_passed_over(sqlite_store, run):
    add(0.1)
    run("promote", "1")
    for number, text in enumerate(EDITED, 5):
        MlflowClient().set_registered_model_tag(NAME, f"history.{number:06}.2020", text)
    MlflowClient().set_registered_model_tag(NAME, "history.latest", json.dumps(MOVE))
    assert len(history()) == 1
    run("promote", add(0.2))
    run("rollback")
    assert standing()[1] == ("Production", ["champion"])


def test_an_edited_move_steers_no_terminal_and_names_no_version_that_is_not_there(sqlite_store, run, refused):
    add(0.1)
    run("promote", "1")
    edited = MOVE | {"version": "77", "why": "\x1b[31mred\n", "by": "<b>", "at": "soon\x07"}
    MlflowClient().set_registered_model_tag(NAME, "history.000000.2020", json.dumps(edited))
    printed = run("models")
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "(version 77) is deleted" in refused("rollback")


def test_a_clock_that_is_ahead_does_not_change_the_order_of_the_history(sqlite_store, run):
    add(0.1)
    run("promote", "1")
    ((key, text),) = MlflowClient().get_registered_model(NAME).tags.items()
    MlflowClient().delete_registered_model_tag(NAME, key)
    MlflowClient().set_registered_model_tag(NAME, key.replace(".20", ".29"), text)
    run("promote", add(0.2))
    assert [move.version for move in history()] == ["1", "2"]
    run("rollback")
    assert standing() == {1: ("Production", ["champion"]), 2: ("Archived", [])}


@pytest.mark.parametrize("call", ["registered-models/set-tag", "registered-models/alias", "transition-stage"])
def test_of_two_moves_at_once_one_holds_with_stage_and_alias_alike(sqlite_store, run, refused, call):
    for style in (0.1, 0.2, 0.3):
        add(style)
    run("promote", "1")
    with flaky.serving(sqlite_store) as server, stores.used(server.uri):
        left = [call]

        def meanwhile(made):
            if left and left[0] in made:
                left.clear()
                move(NAME, "3", "Production", "promote", "by somebody else")
            return flaky.PASS

        server.fate = meanwhile
        assert "somebody else has moved version 3 to Production at the same time" in refused("promote", "2")
    assert [move.version for move in history()] == ["1", "2", "3"]
    assert standing() == {1: ("Archived", []), 2: ("Archived", []), 3: ("Production", ["champion"])}
    assert "warning" not in run("models")


@pytest.mark.parametrize(
    "steps",
    [
        ("promote 1", "promote 2", "champion is 3", "promote 2"),
        ("promote 1", "promote 2", "alias to 3", "promote 2"),
        ("promote 1", "promote 2", "champion is 3", "rollback", "champion is 3", "promote 2"),
        ("promote 1", "promote 2", "rollback", "champion is 2", "promote 1"),
        ("promote 1", "promote 2", "champion is 1", "promote 2"),
    ],
    ids=", ".join,
)
def test_rollback_does_what_promote_has_said_that_it_would(store, run, steps):
    for style in (0.1, 0.1, 0.1):
        add(style)
    for step in steps:
        words = step.split()
        if words[0] in ("champion", "alias"):
            MlflowClient().set_registered_model_alias(NAME, "champion", words[2])
        if words[0] == "champion":
            MlflowClient().transition_model_version_stage(NAME, words[2], "Production", archive_existing_versions=True)
        if words[0] in ("promote", "rollback"):
            printed = run(*words)
    (promised,) = re.findall(r"version (\d) (?:is archived|was the champion); 'socratic-mlflow rollback' makes it", printed)
    run("rollback")
    assert [number for number, stands in standing().items() if "champion" in stands[1]] == [int(promised)]


def test_whoever_was_replaced_last_is_the_first_to_go_back_to():
    """Whoever the champion was before, moved by this project or in MLflow's UI."""
    for champions in itertools.product("123", repeat=5):
        for recorded in itertools.product((True, False), repeat=4):
            if champions[-1] == champions[-2]:
                continue
            made, present = [], ""
            for champion, ours in zip(champions, (*recorded, True), strict=True):
                if ours and champion != present:
                    made.append(Move("", "promote", champion, "Production", present, "", ""))
                present = champion
            assert champions_before(made, present)[0] == champions[-2], made
