"""How often a paired comparison calls two equal models different, by the number of questions; it should be 5 in 100.

    python calibration/few_questions.py

Both "models" answer with replies drawn at random from the dialogues that ship, scored by `socratic_style`.
"""

from __future__ import annotations

import numpy as np

from socratic_mlflow.bootstrap import paired_difference
from socratic_mlflow.dialogues import read_dialogues
from socratic_mlflow.style import socratic_style

TIMES = 1000


def main() -> None:
    """Print a table in Markdown."""
    dialogues = read_dialogues("bundled").dialogues
    replies = [message["content"] for dialogue in dialogues for message in dialogue.messages if message["role"] == "model"]
    styles, rng = [socratic_style(reply) for reply in replies], np.random.default_rng(0)
    print("| questions | called different, of 100 comparisons of equals |\n| --- | --- |")
    for count in (3, 5, 10, 20, 30, 100):
        drawn = rng.choice(styles, (TIMES, 2, count))
        wrong = sum(paired_difference(list(ours), list(theirs)).excludes_zero for ours, theirs in drawn)
        print(f"| {count} | {100 * wrong / TIMES:.1f} |")


if __name__ == "__main__":
    main()
