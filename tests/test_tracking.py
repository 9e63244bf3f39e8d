"""What can be said to an MLflow run, on both kinds of store."""

from __future__ import annotations

import io
import math

import mlflow
import pytest
import servers
import stores
from mlflow import MlflowClient
from PIL import Image
from trackers import run_of

from socratic_mlflow.journal import Journal
from socratic_mlflow.tracking import absolute, store_of


def picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_run_is_called_what_its_output_folder_is_called(store, tmp_path, make_tracker):
    found = make_tracker("embedded-1234/journal")
    found.start()
    assert run_of(found).info.run_name == "embedded-1234"


def test_a_character_that_postgresql_refuses_is_written_as_its_number(tracker):
    tracker.log_params({"data.path": "a\0b"})
    tracker.set_tags({"note": "\0"})
    data = run_of(tracker).data
    assert (data.params["data.path"], data.tags["note"]) == ("a\\x00b", "\\x00")


def test_metrics_arrive_with_their_step_and_one_time_stamp(tracker):
    tracker.log_metrics({"train/loss": 1.5, "memory/rss_gib": 2}, step=7)
    tracker.log_metrics({"train/loss": 1.25}, step=8)
    run_of(tracker)
    history = MlflowClient().get_metric_history(tracker.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(7, 1.5), (8, 1.25)]
    memory = MlflowClient().get_metric_history(tracker.run_id, "memory/rss_gib")[0]
    assert (memory.step, memory.value, memory.timestamp) == (7, 2.0, history[0].timestamp)


def test_a_loss_that_is_no_number_any_more_arrives_too(tracker):
    tracker.log_metrics({"train/loss": math.nan, "train/grad_norm": math.inf}, step=1)
    tracker.log_metrics({"train/loss": 0.5}, step=2)
    metrics = run_of(tracker).data.metrics
    assert metrics["train/loss"] == 0.5
    assert stores.steps(tracker.run_id, "train/loss") == [1, 2]
    assert metrics["train/grad_norm"] > 1e300


def test_more_metrics_and_params_than_one_request_takes_all_arrive(tracker):
    tracker.log_metrics({f"m{number}": number for number in range(1001)}, step=1)
    tracker.log_params({f"p{number}": number for number in range(101)})
    data = run_of(tracker).data
    assert data.metrics == {f"m{number}": number for number in range(1001)}
    assert data.params == {f"p{number}": str(number) for number in range(101)}


def test_a_param_with_another_value_becomes_a_tag_and_raises_nothing(store, make_tracker):
    run_id = MlflowClient().create_run("0").info.run_id
    MlflowClient().log_param(run_id, "training.epochs", "30")
    tracker = make_tracker(run_id=run_id)
    tracker.log_params({"training.epochs": 3, "lora.r": 16})
    tracker.log_params({"training.epochs": 30, "lora.r": 16})
    data = run_of(tracker).data
    assert data.params == {"training.epochs": "30", "lora.r": "16"}
    assert {name: value for name, value in data.tags.items() if name.startswith("changed.")} == {
        "changed.training.epochs": "30 -> 3"
    }


def test_a_table_and_a_text_come_back_as_they_were(tracker):
    rows = [{"question": "正義とは？", "score": 0.5}, {"question": "勇気とは？", "score": 1.0}]
    tracker.log_table(rows, "samples/step_000004.json")
    tracker.log_table([], "samples/step_000008.json")
    tracker.log_text("lora: {r: 16}\n", "config.yaml")
    run_of(tracker)
    assert stores.artifacts(tracker.run_id) == ["config.yaml", "samples/step_000004.json"]
    assert stores.table(tracker.run_id, "samples/step_000004.json") == rows
    assert tracker.read_table("samples/step_000004.json") == rows
    assert stores.artifact_text(tracker.run_id, "config.yaml") == "lora: {r: 16}\n"


def test_a_table_is_one_that_mlflow_itself_can_load(tracker):
    tracker.log_table([{"question": "正義とは？", "score": 0.5}], "samples/step_000004.json")
    run_of(tracker)
    frame = mlflow.load_table("samples/step_000004.json", run_ids=[tracker.run_id])
    assert frame.to_dict("records") == [{"question": "正義とは？", "score": 0.5}]


def test_the_last_table_of_a_name_is_the_one_that_counts(tracker):
    for reply in ("old", "new"):
        tracker.log_table([{"reply": reply}], "samples/step_000002.json")
    run_of(tracker)
    assert tracker.read_table("samples/step_000002.json") == [{"reply": "new"}]
    assert stores.table(tracker.run_id, "samples/step_000002.json") == [{"reply": "new"}]


def test_a_table_that_the_journal_does_not_hold_is_an_error_of_one_line(sqlite_store, make_tracker, tmp_path):
    tracker = make_tracker()
    with pytest.raises(ValueError, match=r"records.jsonl: holds no whole table none.json$"):
        tracker.read_table("none.json")
    tracker.log_table([{"reply": "では"}], "samples.json")
    for file in (tmp_path / "journal" / "files").iterdir():
        file.write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"holds no whole table samples.json$"):
        tracker.read_table("samples.json")


def test_images_are_kept_by_step(tracker):
    for step in (0, 20):
        tracker.log_image(picture((200, step, 0)), "training_progress", step)
    run_of(tracker)
    assert set(stores.image_steps(tracker.run_id)) == {0, 20}
    files = [path for path in stores.artifacts(tracker.run_id, "images") if path.endswith(".png")]
    colors = {Image.open(MlflowClient().download_artifacts(tracker.run_id, path)).getpixel((1, 1)) for path in files}
    assert colors == {(200, 0, 0), (200, 20, 0)}


def test_a_long_tag_is_cut_and_secrets_stay_out(tracker, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "s3cret-value-77")
    tracker.set_tags({"long": "x" * 9000, "secret": "a s3cret-value-77"})
    tracker.set_tags({})
    tags = run_of(tracker).data.tags
    assert (tags["long"], tags["secret"]) == ("x" * 5000, "a ***")


def test_halves_of_characters_are_no_error(tracker):
    tracker.set_tags({"odd": "a\ud83db"})
    tracker.log_text("a\ud83db", "odd.txt")
    tracker.log_table([{"reply": "a\ud83db"}], "odd.json")
    assert run_of(tracker).data.tags["odd"] == "a?b"
    assert stores.artifact_text(tracker.run_id, "odd.txt") == "a?b"
    assert tracker.read_table("odd.json") == stores.table(tracker.run_id, "odd.json") == [{"reply": "a?b"}]


def test_metrics_of_an_earlier_start_are_left_as_they_are(store, make_tracker):
    first = make_tracker()
    first.log_metrics({"train/loss": 2.0}, step=1)
    first.log_metrics({"train/loss": 1.0}, step=2)
    run_of(first)
    first.close()
    again = make_tracker()
    again.log_metrics({"train/loss": 9.0, "eval/loss": 3.0}, step=2)
    again.log_metrics({"train/loss": 0.5}, step=3)
    run_of(again)
    assert again.run_id == first.run_id
    points = MlflowClient().get_metric_history(first.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert stores.steps(first.run_id, "eval/loss") == [2]


def test_a_metric_is_logged_on_its_models_page_as_well(sqlite_store, make_tracker):
    model = mlflow.create_external_model(name="m")
    tracker = make_tracker()
    tracker.log_metrics({"eval/style": 0.5}, 0, model.model_id)
    tracker.log_metrics({"eval/tone": 0.5}, 0)
    run_of(tracker)
    assert [metric.key for metric in mlflow.get_logged_model(model.model_id).metrics] == ["eval/style"]


def test_the_experiment_that_a_person_has_chosen_is_used(store, make_tracker, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    by_name = run_of(make_tracker("by name"))
    assert MlflowClient().get_experiment(by_name.info.experiment_id).name == "from the environment"
    chosen = MlflowClient().create_experiment("chosen")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", chosen)
    assert run_of(make_tracker("by id")).info.experiment_id == chosen


def test_a_run_knows_who_made_it(tracker):
    tags = run_of(tracker).data.tags
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type", "training_id"} <= set(tags)


def test_a_journal_goes_to_no_other_store(store, make_tracker, tmp_path, monkeypatch):
    make_tracker().close()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    other = f"http://ada:hunter22@127.0.0.1:{servers.free_port()}"
    with stores.used(other), pytest.raises(ValueError, match="is the journal of a run in") as caught:
        make_tracker()
    assert store_of(tmp_path / "journal") == store
    assert store in str(caught.value)
    assert "hunter22" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_said_waits_for_mlflow(make_tracker, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with stores.used(f"http://ada:hunter22@127.0.0.1:{servers.free_port()}"):
        tracker = make_tracker()
        tracker.start()
        tracker.log_metrics({"train/loss": 1.5}, step=7)
        tracker.log_table([{"reply": "では"}], "samples.json")
        tracker.log_image(picture((1, 2, 3)), "training_progress", 7)
        tracker.log_dataset([{"question": "正義とは？"}], "questions", "evaluation", "bundled")
        assert not tracker.end("FINISHED")
        assert (tracker.run_id, tracker.trouble) == ("", "connection refused")
        assert tracker.read_table("samples.json") == [{"reply": "では"}]
        assert b"hunter22" not in b"".join(path.read_bytes() for path in tracker.folder.rglob("*") if path.is_file())


HOSTILE = [
    {"kind": "metrics"},
    {"kind": "metrics", "time": 1, "step": "x", "values": {"train/loss": 1.0}},
    {"kind": "metrics", "time": 1, "step": 1, "values": ["train/loss"]},
    {"kind": "table", "path": ["a.json"]},
    {"kind": "__init__"},
]


@pytest.mark.parametrize("record", HOSTILE, ids=str)
def test_a_journal_with_records_of_wrong_types_can_be_continued(sqlite_store, make_tracker, tmp_path, record):
    make_tracker().close()
    journal = Journal(tmp_path / "journal")
    journal.open()
    journal.append(record)
    journal.close()
    tracker = make_tracker()
    tracker.log_metrics({"train/loss": 0.5}, step=2)
    assert run_of(tracker).data.metrics == {"train/loss": 0.5}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("file:./mlruns", "file:{here}/mlruns"),
        ("mlruns", "{here}/mlruns"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("file:///data/mlruns", "file:///data/mlruns"),
        ("https://tracking.example:5000/mlflow", "https://tracking.example:5000/mlflow"),
        ("postgresql+psycopg://db/mlflow", "postgresql+psycopg://db/mlflow"),
    ],
)
def test_an_address_means_the_same_from_any_folder(tmp_path, monkeypatch, uri, shown):
    monkeypatch.chdir(tmp_path)
    assert absolute(uri) == shown.format(here=tmp_path)
