"""After a training: its champion stands where it should and answers in style. Prints the figures that it checks.

python .ci/check_first_run.py MODEL_NAME SHARE LOOPS

SHARE of the held-out replies' own style must be reached, the replies must not have collapsed, and fewer than LOOPS (a
share) of them may loop.
"""

from __future__ import annotations

import json
import sys

import mlflow
from mlflow import MlflowClient


def main() -> None:
    """Exit with an AssertionError that names what is not as promised."""
    client, name, share, loops = MlflowClient(), sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    champion = client.get_model_version_by_alias(name, "champion")
    assert champion.current_stage == "Production", champion.current_stage
    assert champion.tags["collapsed"] == "no", champion.tags["collapsed"]
    run = client.get_run(champion.tags["run_id"])
    assert run.info.status == "FINISHED", run.info.status
    metrics = run.data.metrics
    style, reference, base = (
        metrics[name] for name in ("summary/best_style", "eval/reference_style", "summary/base_style")
    )
    print(f"style: base {base:.3f}, best {style:.3f}, held-out replies {reference:.3f} (ratio {style / reference:.2f})")
    print(f"training took {metrics['summary/duration_s']:.0f} s")
    assert base < 0.1, base
    assert style >= share * reference, (style, reference)
    for step in (0, int(champion.tags["step"])):
        at_step = {name: value_at(client, run.info.run_id, name, step) for name in ("eval/loop_share", "eval/reply_chars")}
        print(f"step {step}: {json.dumps(at_step)}")
        assert at_step["eval/loop_share"] < loops, at_step
    replies = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(["勇気とは何ですか？", "眠れません。"])
    assert len(replies) == 2, replies
    assert all(replies), replies


def value_at(client: MlflowClient, run_id: str, name: str, step: int) -> float:
    """The metric's value at `step`, of which there must be just one."""
    (point,) = [point for point in client.get_metric_history(run_id, name) if point.step == step]
    return float(point.value)


if __name__ == "__main__":
    main()
