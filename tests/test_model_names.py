"""Every command that takes a MODEL knows the same names for it, and makes no store where there is no such model."""

from __future__ import annotations

import pytest
import stores

from socratic_mlflow import cli

RUN_ID = "0123456789abcdef" * 2
COMMANDS = {"chat": [], "export": ["--output_dir", "out"], "serve": ["--port", "0"], "evaluate": []}


@pytest.fixture(params=COMMANDS)
def asked(request, tmp_path, monkeypatch, capsys):
    """Name a model to the command in an empty folder; what it says, which is one line and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)

    def ask(*model):
        with stores.used(f"sqlite:///{tmp_path}/mlflow.db"), pytest.raises(SystemExit) as stopped:
            cli.main([request.param, *model, *COMMANDS[request.param]])
        printed = capsys.readouterr()
        notes = [line for line in (printed.out + printed.err).splitlines() if not line.startswith("loading ")]
        assert (stopped.value.code, len(notes), list(tmp_path.iterdir())) == (2, 1, [])
        return notes[0]

    return ask


@pytest.mark.parametrize("model", ["models:/socratic-gemma@champion", "models:/x/1", RUN_ID, f"runs:/{RUN_ID}/adapter"])
def test_no_store_is_made_by_asking_for_a_model(asked, model):
    assert "there is no MLflow store at" in asked(model)


def test_no_store_is_made_for_a_folder_that_is_not_there(asked):
    told = asked("nowhere")
    assert "nowhere: no adapter folder (it has no adapter_config.json); MODEL is models:/NAME/VERSION" in told
    assert "a run id or runs:/RUN_ID/adapter" in told


@pytest.mark.parametrize("model", ["models:/x/1", RUN_ID])
def test_a_base_beside_what_has_its_own_is_refused(asked, model):
    assert "model.base_model has no effect here: " in asked(model, "--base_model", "embedded")
