"""Many kills at random moments. Minutes long: pytest -n 0 -m soak -s (SOAK_KILLS and SOAK_SEED in the environment)."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import faults
import pytest
import servers
import stores
import training
from servers import Server

# Long enough that most kills strike while it learns; evaluated often enough that each start gets further.
CHANGES = {"max_steps": 40, "eval_steps": 4}
LONGEST_S = 9.0


@pytest.mark.soak
def test_kill_9_at_random_moments_leaves_no_trace(
    tmp_path: Path, training_inputs: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("SOAK_SEED", random.randrange(10**6)))
    kills = int(os.environ.get("SOAK_KILLS", "20"))
    print(f"\nSOAK_SEED={seed} SOAK_KILLS={kills}")
    chance = random.Random(seed)
    monkeypatch.setattr(training, "MAX_STEPS", CHANGES["max_steps"])
    monkeypatch.setattr(training, "EVALUATED", list(range(0, CHANGES["max_steps"] + 1, CHANGES["eval_steps"])))
    given = training.arguments(training_inputs, **CHANGES)
    uri = stores.make(tmp_path / "whole", "sqlite", empty_database)
    with stores.used(uri):
        assert training.command(tmp_path / "whole", given)[0] == 0
        reference = training.Training(tmp_path / "whole", given, "", uri, stores.only_run())
    struck, number = 0, 0
    while struck < kills:
        number += 1
        folder = tmp_path / f"training-{number}"
        with servers.running(Server(folder / "server", empty_database)) as server, stores.used(server.uri):
            struck += until_done(folder, given, server, chance)
            faults.check_whole(reference, folder / "out")
        print(f"training {number} is whole after {struck} kills in all")
        shutil.rmtree(folder)


def until_done(folder: Path, given: list[str], server: Server, chance: random.Random) -> int:
    """Kill the training, and now and then its server, at random moments until it is done; returns how often."""
    kills = 0
    while True:
        assert kills < 100, "it never comes to an end"
        with faults.started(folder, given) as process:
            process.wait_for(lambda: process.printed, "it says something")
            moment = chance.uniform(0, LONGEST_S)
            strikes_server = chance.random() < 0.2
            if process.ends_within(moment):
                assert process.popen.returncode == 0, process.printed + process.errors
                break
            process.kill()
            kills += 1
            if strikes_server:
                server.kill()
                server.start()
    # The last start may have left something to deliver.
    assert "Traceback" not in process.errors
    assert training.command(folder, ["sync", "out"])[0] == 0
    return kills
