"""`socratic-mlflow compare`: trainings side by side. Real stores; the runs have what a training logs."""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import subprocess
import sys

import flaky
import mlflow
import pytest
import stores
import versions
from comparisons import Page, add_run, cells, images
from mlflow import MlflowClient
from PIL import Image

JAPANESE = "学習率の比較"


def test_the_best_style_comes_first_and_only_what_differs_is_shown(store, run):
    low = add_run("low", (0.0, 0.2, 0.1), lora__r=8)
    high = add_run("high", (0.0, 0.1, 0.45), training__learning_rate=0.001, run__output_dir="elsewhere")
    first, second = cells(run("compare"))
    assert list(first) == [
        "#", "run", "id", "status", "learning_rate", "lora_r", "style", "tone", "loss", "hollow", "best step",
        "duration", "version",
    ]  # fmt: skip
    assert (first["run"], first["id"], first["status"]) == ("high", high[:8], "finished")
    assert (first["learning_rate"], first["lora_r"], first["style"], first["best step"]) == ("0.001", "16", "0.450", "20")
    shown = [second[name] for name in ("learning_rate", "lora_r", "style", "best step")]
    assert shown == ["8e-05", "8", "0.200", "10"]
    assert (second["id"], second["tone"], second["loss"], second["duration"]) == (low[:8], "0.500", "2.900", "1 min 05 s")


def test_a_collapsed_run_comes_last_whatever_its_style(sqlite_store, run):
    add_run("honest", (0.0, 0.2))
    add_run("collapsed", (0.0, 0.9), hollow=0.8)
    printed = run("compare")
    assert [row["run"] for row in cells(printed)] == ["honest", "collapsed"]
    assert "#2 has collapsed (80% of the replies" in printed


def test_runs_that_are_not_done_are_marked_and_only_compared_when_named(store, run):
    done = add_run("done")
    others = {status: add_run(f"is {status}", status=status) for status in ("RUNNING", "FAILED", "KILLED")}
    assert [row["id"] for row in cells(run("compare"))] == [done[:8]]
    printed = run("compare", done, *others.values())
    assert {row["status"] for row in cells(printed)} == {"finished", "running", "failed", "killed"}
    for state in ("is still running", "has failed", "was stopped or killed"):
        assert state in printed


def test_mistakes_are_one_line(store, refused, tmp_path):
    MlflowClient().search_experiments()
    assert "experiment 'Default' has no finished training" in refused("compare")
    one = add_run("twin")
    add_run("twin")
    MlflowClient().delete_run(add_run("deleted"))
    gone = MlflowClient().create_run("0").info.run_id
    MlflowClient().delete_run(gone)
    (tmp_path / "there.html").write_text("mine")
    for given, words in [
        (["twin"], "'twin' means 2 runs in this MLflow store ("),
        (["nobody"], "no run 'nobody' in this MLflow store; RUN is a run id"),
        ([""], "no run ''"),
        (["%"], "no run '%'"),
        (["deleted"], "no run 'deleted'"),
        ([gone], "is deleted; restore it"),
        (["f" * 32], "no run 'ffff"),
        ([one[:3]], "no run"),
        ([one, "--last", "2"], "give RUNs or --last N, not both"),
        (["--last", "0"], "it takes a whole number from 1 to 100"),
        (["--last", "many"], "it takes a whole number from 1 to 100"),
        (["--experiment", "nowhere"], "there is no experiment 'nowhere'; there are 'Default'"),
        ([one, "--html", tmp_path / "there.html"], "is there already and is not written over"),
        ([one, "--html", tmp_path / "no/page.html"], "there is no folder"),
        ([one, "--figure", tmp_path / "figure.pdf"], "give a name that ends in .png"),
        ([one, "--figure", tmp_path / "a.png", "--html", tmp_path / "a.png"], "give two names"),
    ]:
        assert words in refused("compare", *given), given
    assert (tmp_path / "there.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["there.html"]


BASES = [f"/models/gemma-2-2b/{kind}/checkpoints/long-enough/adapter" for kind in ("one", "two")] + ["/models/" + "x" * 40]


def test_values_that_differ_look_different_and_the_page_has_them_whole(sqlite_store, run, tmp_path):
    for count, base in enumerate(BASES):
        add_run(f"run-{count}", model__base_model=base)
    shown = {row["run"]: row["base_model"] for row in cells(run("compare", "--html", tmp_path / "page.html"))}
    assert shown == {"run-0": BASES[0], "run-1": BASES[1], "run-2": "…" + "x" * 27}
    assert set(BASES) <= set(Page((tmp_path / "page.html").read_text(encoding="utf-8")).texts)


def test_scores_that_do_not_compare_are_said_to_and_other_data_too(sqlite_store, run):
    add_run("one")
    assert "note" not in run("compare")
    add_run("two", evaluation__questions_digest="others")
    assert "styles do not compare" in run("compare")
    assert "not all of these runs had the same dialogues" not in run("compare")
    add_run("three", data__digest="others")
    assert "not all of these runs had the same dialogues" in run("compare")


def test_a_param_that_a_later_start_changed_has_its_present_value(sqlite_store, run):
    add_run("longer", tags={"changed.training.epochs": "30 -> 60"})
    add_run("plain")
    assert {row["run"]: row["epochs"] for row in cells(run("compare"))} == {"longer": "60", "plain": "30"}


def test_a_run_of_another_project_has_dashes(sqlite_store, run):
    add_run("ours")
    with mlflow.start_run(run_name="foreign"):
        mlflow.log_param("alpha", 1)
    first, second = cells(run("compare", "ours", "foreign"))
    assert (first["run"], second["run"]) == ("ours", "foreign")
    assert [second[name] for name in ("style", "tone", "loss", "hollow", "best step", "version")] == ["-"] * 6


def test_a_run_whose_scores_are_not_finite_is_compared_all_the_same(sqlite_store, run, tmp_path):
    add_run("diverged", (0.0, math.nan, math.inf))
    add_run("recovered", (math.nan, math.nan, 0.1))
    add_run("fine", (0.0, 0.2))
    found = cells(run("compare", "--figure", tmp_path / "curves.png"))
    assert [row["run"] for row in found] == ["fine", "recovered", "diverged"]
    assert [row["style"] for row in found] == ["0.200", "0.100", "0.000"]
    assert (tmp_path / "curves.png").is_file()


def test_the_page_stands_alone_and_shows_names_as_they_are(store, run, tmp_path):
    add_run(JAPANESE, (0.0, 0.3), lora__r=8)
    add_run('<script>alert()</script>&"', (0.0, 0.1))
    printed = run("compare", "--html", tmp_path / "page.html")
    assert f"wrote  {tmp_path / 'page.html'}" in printed
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert JAPANESE in page.texts
    assert '<script>alert()</script>&"' in page.texts
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.search(r"(?:src|href|srcset)=\"(?!data:image/png)|url\(|@import", text)
    dark, light = images(page)
    assert light.size == dark.size
    assert light.convert("L").getpixel((1, 1)) > 200 > 60 > dark.convert("L").getpixel((1, 1))
    assert {"lora_r", "0.300", "8"} <= set(page.texts)


def test_the_figure_has_each_runs_style_on_the_left_and_its_loss_on_the_right(sqlite_store, run, tmp_path):
    add_run("blue", (0.05, 0.3, 0.4))
    add_run("without style", ())
    add_run("orange", (0.0, 0.1, 0.2))
    run("compare", "blue", "orange", "without style", "--figure", tmp_path / "curves.png")
    figure = Image.open(tmp_path / "curves.png").convert("RGB")
    half, legend = figure.width // 2, int(figure.height * 0.85)
    style, loss = figure.crop((0, 0, half, legend)), figure.crop((half, 0, figure.width, legend))
    colors = {(0, 0x72, 0xB2): "blue", (0xD5, 0x5E, 0): "orange", (0, 0x9E, 0x73): "third"}
    drawn = [{colors[color] for _, color in part.getcolors(1 << 24) if color in colors} for part in (style, loss)]
    assert drawn == [{"blue", "orange"}, {"blue", "orange"}]


def test_the_figure_is_written_and_never_over_another(sqlite_store, run, refused, tmp_path):
    add_run("one")
    run("compare", "--figure", tmp_path / "curves.png")
    before = (tmp_path / "curves.png").read_bytes()
    assert Image.open(io.BytesIO(before)).size[0] > 1000
    assert "is there already" in refused("compare", "--figure", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == before


def test_what_others_wrote_is_text_in_the_page_and_in_the_terminal(sqlite_store, run, tmp_path):
    hostile = "</td><img src=x onerror=alert(1)>\x1b[31m\n\u202e"
    experiment = mlflow.create_experiment(f"<script>{hostile.strip()}")
    for rate in (hostile, "<iframe>"):
        add_run(hostile, experiment=experiment, training__learning_rate=rate, evaluation__questions_digest=rate)
    printed = run("compare", "--experiment", f"<script>{hostile.strip()}", "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for steering in ("\x1b", "\u202e"):
        assert steering not in printed + text
    page = Page(text)
    assert not {"script", "iframe"} & {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("img") == 1
    assert "<iframe>" in page.texts


@pytest.mark.filterwarnings("error:Glyph")
def test_names_that_no_font_has_or_that_look_like_formulas_make_no_noise(sqlite_store, run, tmp_path):
    for name in (JAPANESE, "$x_{$", "a" * 100, "tab\tand\nline", "🦊"):
        add_run(name)
    run("compare", "--figure", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").format == "PNG"


def test_many_runs_fit(sqlite_store, run, tmp_path):
    for count in range(12):
        add_run(f"run-{count}", start=count)
    run("compare", "--last", 12, "--figure", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


def test_a_comparison_is_logged_when_asked(store, run):
    ids = [add_run("one", (0.0, 0.3)), add_run(JAPANESE, (0.0, 0.1))]
    assert "into run " in run("compare", "--log")
    (logged,) = MlflowClient().search_runs(["0"], "tags.job = 'compare'")
    assert (logged.info.run_name, logged.info.status) == ("comparison", "FINISHED")
    assert logged.data.tags["compared_runs"] == ",".join(ids)
    names = stores.artifacts(logged.info.run_id)
    assert sorted(names) == ["comparison.html", "comparison.json", "comparison.png"]
    assert [row["run"] for row in stores.table(logged.info.run_id, "comparison.json")] == ["one", JAPANESE]
    assert JAPANESE in stores.artifact_text(logged.info.run_id, "comparison.html")
    # The comparison is no training, and is not compared the next time.
    assert len(cells(run("compare"))) == 2


def test_a_comparison_is_logged_beside_the_runs_that_were_named(sqlite_store, run):
    elsewhere = mlflow.create_experiment("elsewhere")
    add_run("far", experiment=elsewhere)
    run("compare", "far", "--log")
    assert len(MlflowClient().search_runs([elsewhere], "tags.job = 'compare'")) == 1


def test_nothing_is_logged_unless_asked(sqlite_store, run):
    add_run("one")
    run("compare")
    assert len(MlflowClient().search_runs(["0"])) == 1


def test_a_real_training_scores_in_the_table_as_in_the_registry(trained, run):
    (row,) = cells(run("compare", trained.run.info.run_id))
    metrics = trained.run.data.metrics
    assert float(row["style"]) == pytest.approx(metrics["summary/registered_style"], abs=5e-4)
    assert float(row["loss"]) == pytest.approx(metrics["summary/registered_loss"], abs=5e-4)
    assert row["version"] == "tiny-socrates/1"
    assert row["best step"] == MlflowClient().get_model_version("tiny-socrates", "1").tags["step"]


def test_over_http_it_is_the_same(tmp_path, empty_database):
    store = stores.make(tmp_path / "store", "sqlite", empty_database)
    with stores.used(store), flaky.serving(store) as server, stores.used(server.uri):
        ids = [add_run("one", (0.0, 0.3)), add_run("two", (0.0, 0.1))]
        printed = versions.command(tmp_path, "compare", ids[0][:8], "two", "--log")
        assert [row["id"] for row in cells(printed)] == [ids[0][:8], ids[1][:8]]
        (logged,) = MlflowClient().search_runs(["0"], "tags.job = 'compare'")
        assert len(stores.artifacts(logged.info.run_id)) == 3


@pytest.mark.skipif(not shutil.which("head"), reason="no head")
def test_a_reader_that_goes_away_is_no_error(sqlite_store, tmp_path):
    add_run("one")
    command = f"{sys.executable} -m socratic_mlflow compare | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.stderr == ""
