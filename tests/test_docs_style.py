"""docs/style.md says what the code does: its numbers, its example profile, its fields, what `explain` prints."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from socratic_mlflow import tone_weights
from socratic_mlflow.socratic import SOCRATIC
from socratic_mlflow.style import MEASURED, socratic_style, socratic_tone
from socratic_mlflow.style_profile import Feature, StyleProfile, parse_profile

REFRESH = "python calibration/fit_tone.py FILE --docs docs/style.md --plot docs/images/calibration.png"


@pytest.fixture(scope="module")
def docs(repository: Path) -> str:
    return (repository / "docs" / "style.md").read_text(encoding="utf-8")


def cells(docs: str, begin: str, end: str = "\n\n") -> list[list[str]]:
    """The rows of the table behind `begin`, without its head."""
    table = docs.split(begin, 1)[1].strip().split(end, 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if line.startswith("|")]
    return rows[2:]


def block(docs: str, name: str, language: str) -> str:
    """The first code block of that language behind the comment <!-- name -->."""
    found = re.search(rf"<!-- {name} -->.*?```{language}\n(.*?)```", docs, re.DOTALL)
    assert found is not None, name
    return found[1]


def named(cell: str) -> str:
    """What stands in backquotes first."""
    found = re.search(r"`([^`]+)`", cell)
    return found[1] if found else cell


def test_the_tables_numbers_are_the_packages(docs: str) -> None:
    rows = cells(docs, "<!-- features -->", "\n<!--")
    shown = {named(row[0]): float(row[1].split()[0]) for row in rows}
    assert shown.pop("base") == tone_weights.BASE, REFRESH
    assert shown == tone_weights.WEIGHTS, REFRESH
    described = {feature.name: feature.what for feature in SOCRATIC.tone}
    assert {named(row[0]): row[0].partition(": ")[2] for row in rows[1:]} == described, REFRESH


def test_the_style_tables_weights_are_the_packages(docs: str) -> None:
    shown = {named(row[0]): float(row[1]) for row in cells(docs, "## socratic_style\n\n```", "\n\n「")}
    assert shown == {feature.name: feature.weight for feature in SOCRATIC.style}


@pytest.mark.parametrize(("score", "row"), [(socratic_style, 0), (socratic_tone, 2)])
def test_the_agreement_is_what_the_ratings_give(
    docs: str, shared_data: Path, score: Callable[[str], float], row: int
) -> None:
    stats = pytest.importorskip("scipy.stats")
    lines = (shared_data / "judged_replies_dev.jsonl").read_text(encoding="utf-8").splitlines()
    judged = [json.loads(line) for line in lines]
    found = stats.spearmanr([score(reply["reply"]) for reply in judged], [reply["tone"] for reply in judged])[0]
    name, shown, interval = cells(docs, "<!-- agreement -->", "\n<!--")[row]
    low, high = map(float, interval.split(" to "))
    assert name.startswith(score.__name__)
    assert float(shown) == pytest.approx(found, abs=0.0006), REFRESH
    assert low < found < high


def test_the_scale_has_the_documented_ends() -> None:
    weights = tone_weights.WEIGHTS
    assert tone_weights.BASE + weights["polite"] + weights["asks_nothing"] == pytest.approx(0.0, abs=0.003)
    assert tone_weights.BASE + sum(weight for weight in weights.values() if weight > 0) == pytest.approx(1.0)


def test_what_explain_prints(docs: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block(docs, "explain", "python"), {})
    assert printed.getvalue() == block(docs, "explain", "text")


def test_the_example_profile_is_read_and_tells_styles_apart(docs: str) -> None:
    osaka = parse_profile(block(docs, "profile", "yaml"), "docs/style.md")
    theirs, plain = (
        "せやな、ほんまに寒いで。ほな、一緒に帰ろか。もう待たれへん。",
        "そうですね。寒いです。一緒に帰りましょう。",
    )
    assert osaka.tone_base + sum(feature.weight for feature in osaka.tone if feature.weight > 0) == pytest.approx(1.0)
    assert sum(feature.weight for feature in osaka.style) == pytest.approx(1.0)
    assert socratic_style(theirs, osaka) > 0.3 > socratic_style(plain, osaka) == 0.0
    assert socratic_tone(theirs, osaka) > 0.9 > socratic_tone(plain, osaka) == 0.0


def test_the_example_shows_every_field(docs: str) -> None:
    example = block(docs, "profile", "yaml")
    for spec in (*dataclasses.fields(StyleProfile), *dataclasses.fields(Feature)):
        assert re.search(rf"\b{spec.name}:", example), spec.name


def test_every_field_and_measure_is_documented(docs: str) -> None:
    tables = {
        "| field of the profile |": [spec.name for spec in dataclasses.fields(StyleProfile)],
        "| field of a feature |": [spec.name for spec in dataclasses.fields(Feature)],
        "| measure | the reply has it if |": list(MEASURED),
    }
    for head, names in tables.items():
        assert sorted(named(row[0]) for row in cells(docs.replace(head, f"HEAD\n{head}"), "HEAD")) == sorted(names)


def test_the_shown_error_is_the_real_one(docs: str) -> None:
    text = "name: mine\nwhat: mine\nstyle:\n- name: ending\n  weight: much\n  ends: [やで]\ntone: []\n"
    with pytest.raises(ValueError, match="weight is 'much'") as error:
        parse_profile(text, "mine.yaml")
    assert str(error.value) in docs


def test_links_lead_somewhere(docs: str, repository: Path) -> None:
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in docs.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", docs):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (repository / "docs" / target.partition("#")[0]).is_file(), target


@pytest.mark.parametrize("page", ["README.md", "docs/style.md"])
def test_the_shown_scores_are_what_the_command_prints(repository: Path, page: str) -> None:
    shown = re.findall(r"\$ socratic-mlflow score '(.*)'\n(.*?)\n```", (repository / page).read_text("utf-8"), re.DOTALL)
    assert len(shown) == 1
    command = [sys.executable, "-m", "socratic_mlflow", "score", shown[0][0]]
    environment = os.environ | {"COLUMNS": "110", "PYTHONUTF8": "1"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert printed.rstrip() == shown[0][1]
