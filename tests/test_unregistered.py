"""`register=false`: a whole training whose adapter stays in its folder, until the same command says otherwise."""

from __future__ import annotations

from pathlib import Path

import stores
import training
from mlflow import MlflowClient


def test_a_training_that_is_not_registered_is_whole_and_can_be_registered_later(
    sqlite_store: str, tmp_path: Path, training_inputs: Path
) -> None:
    given = training.arguments(training_inputs, register="false")
    code, printed = training.command(tmp_path, given)
    assert code == 0
    run = stores.only_run()
    assert f"adapter out/best_adapter, not registered (register=false; run {run.info.run_id})" in printed
    assert run.info.status == "FINISHED"
    assert run.data.params["registry.register"] == "False"
    assert len(stores.table(run.info.run_id, "before_and_after.json")) == 4
    assert MlflowClient().search_registered_models() == []
    # The same again, and a delivery, change nothing.
    for again in (given, ["sync", "out"]):
        code, printed = training.command(tmp_path, again)
        assert (code, printed.count("not registered (register=false")) == (0, 1)
    assert stores.only_run().info.end_time == run.info.end_time
    assert training.command(tmp_path, [*given, "--register=true"])[0] == 0
    (version,) = MlflowClient().search_model_versions(f"name='{training.MODEL}'")
    assert (version.run_id, version.current_stage) == (run.info.run_id, "Production")
    assert "has finished already" in training.command(tmp_path, [*given, "--register=true"])[1]
    assert stores.logged_twice(run.info.run_id) == []
    assert stores.only_run().info.status == "FINISHED"
