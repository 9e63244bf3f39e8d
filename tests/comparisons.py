"""Runs as a training logs them, without the minutes of one, and what `compare` makes of them, read back."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from PIL import Image

from socratic_mlflow.config import Config, flatten


def add_run(name, styles=(0.1, 0.2), *, status="FINISHED", experiment="0", start=0, hollow=0.0, tags=None, **params):
    """A run as a training logs it, evaluated at steps 0, 10, 20, ...; `params` by dotted key, dot as __. Returns its id."""
    client = MlflowClient()
    run_id = client.create_run(experiment, start_time=1_000_000 + start * 1000, run_name=name, tags=tags).info.run_id
    values = flatten(Config()) | {
        "evaluation.questions_digest": "q",
        "evaluation.style_profile_digest": "p",
        "data.digest": "d",
    }
    values |= {key.replace("__", "."): value for key, value in params.items()}
    found = [Metric("eval/socratic_style", style, 0, 10 * count) for count, style in enumerate(styles)]
    found += [Metric("eval/socratic_tone", 0.5, 0, 10 * count) for count in range(len(styles))]
    found += [Metric("eval/hollow_share", hollow, 0, 10 * count) for count in range(len(styles))]
    found += [Metric("eval/loss", 3.0 - styles[0] - 0.1 * count, 0, 10 * count) for count in range(len(styles))]
    found += [Metric("train/loss", 3.5 - 0.01 * step, 0, step) for step in range(1, 10 * len(styles))]
    client.log_batch(run_id, metrics=found, params=[Param(key, str(value)) for key, value in values.items()])
    if status != "RUNNING":
        client.set_terminated(run_id, status, end_time=1_000_000 + start * 1000 + 65_000)
    return run_id


def cells(printed):
    """[{heading: cell}] of the printed table; cells have no two spaces in a row."""
    lines = printed.splitlines()
    heads = re.split(r"  +", lines[0].strip())
    found = [re.split(r"  +", line.strip()) for line in lines[2:] if line.strip()[:1].isdigit()]
    assert all(len(row) == len(heads) for row in found), printed
    return [dict(zip(heads, row, strict=True)) for row in found]


class Page(HTMLParser):
    """What a page has: its texts, its tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def images(page):
    """The PNG files in a page."""
    sources = [attributes.get("src") or attributes["srcset"] for tag, attributes in page.tags if tag in ("img", "source")]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]
