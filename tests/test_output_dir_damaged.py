"""Files of an output folder that are damaged, are no files, or cannot be written: one line, and nothing is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import disks
import pytest
from output_dirs import CONFIG, STORE, begun_output, changed, contents, new_output, refusal  # noqa: F401

from socratic_mlflow.options import to_yaml
from socratic_mlflow.output_dir import OutputDir

TORN = b"run_id: abc\ntracking_uri"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"run_id: [", ":1: not valid YAML (expected the node content, but found '<stream end>')"),
        (b"[" * 5000, ":1: not valid YAML (nested too deeply)"),
        (b"\xff\xfe", ": is not UTF-8 text"),
        (b"", ": has no tracking_uri"),
        (b"null", ": has no tracking_uri"),
        (b"- run_id", ": has no tracking_uri"),
        (b"run_id: abc\n", ": has no tracking_uri"),
        (TORN, ":2: not valid YAML (could not find expected ':')"),
        (b"run_id: 2026-13-45", ": holds something else than text"),
        (b"run_id: 5\ntracking_uri: x", ": holds something else than text"),
        (b"run_id: [a]\ntracking_uri: x", ": holds something else than text"),
        (b"? [a]\n: x", ": holds something else than text"),
        (b"run_id: !!python/object/apply:os.mkdir [executed]", ": holds something else than text"),
        (b"run_id: !!python/name:os.system x", ": holds something else than text"),
        (b"\0" * 50, ":1: not valid YAML (special characters are not allowed)"),
        (b"#" * 70_000, ": is larger than 65536 bytes"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_a_damaged_record_is_refused_with_its_name_and_what_is_wrong(
    begun: OutputDir, data: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(begun.folder)
    file = begun.folder / "run.yaml"
    file.write_bytes(data)
    assert refusal(begun) == f"{file}{what}; restore the file or choose another output_dir"
    assert sorted(path.name for path in begun.folder.iterdir()) == ["config.yaml", "run.yaml"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", ": has no section run;"),
        (to_yaml(CONFIG).partition("lora:")[0].encode(), ": has no section lora;"),
        (b"lora: [", ":1: not valid YAML"),
        (b"\xff\xfe", ": is not UTF-8 text"),
        (b"lora: {r: many}", ":1: lora_r (lora.r) is 'many'"),
        (b"lora: {r: -1}", ":1: lora.r is -1"),
        (b"nonsense: 1", ":1: unknown field 'nonsense'"),
        (b"lora: !!python/object/apply:os.mkdir [executed]", ":1: expected "),
        (b"[" * 5000, ":1: not valid YAML (nested too deeply)"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_a_damaged_configuration_in_the_folder_is_refused_with_its_name(
    begun: OutputDir, data: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(begun.folder)
    (begun.folder / "config.yaml").write_bytes(data)
    message = refusal(begun)
    assert message.startswith(f"{begun.folder / 'config.yaml'}{what}")
    assert message.endswith("choose another output_dir")
    assert sorted(path.name for path in begun.folder.iterdir()) == ["config.yaml", "run.yaml"]


def test_a_missing_configuration_is_refused_with_its_name(begun: OutputDir) -> None:
    (begun.folder / "config.yaml").unlink()
    assert refusal(begun).startswith(f"{begun.folder / 'config.yaml'}: is missing; restore the file or")


@pytest.mark.parametrize("name", ["run.yaml", "config.yaml"])
def test_a_pipe_a_link_a_folder_or_a_sparse_giant_neither_waits_nor_fills_the_memory(begun: OutputDir, name: str) -> None:
    file = begun.folder / name
    file.rename(begun.folder / "elsewhere")
    file.symlink_to("elsewhere")
    assert refusal(begun).startswith(f"{file}: is a symbolic link; ")
    file.unlink()
    os.mkfifo(file)
    assert refusal(begun).startswith(f"{file}: is no regular file; ")
    file.unlink()
    with file.open("wb") as giant:
        giant.truncate(1 << 40)
    assert refusal(begun).startswith(f"{file}: is larger than 65536 bytes; ")
    file.unlink()
    file.mkdir()
    assert refusal(begun).startswith(f"{file}: is no regular file; ")


def test_on_a_full_disk_the_record_stays_as_it_was(tmp_path: Path) -> None:
    with disks.tiny(tmp_path / "disk") as disk:
        output = OutputDir(disk / "out")
        output.record(CONFIG, run_id="abc", tracking_uri=STORE)
        before, filler = contents(output.folder), disks.fill(disk)
        with pytest.raises(ValueError, match=rf"^\S+/config.yaml: cannot be written \({os.strerror(errno.ENOSPC)}\)$"):
            output.record(changed(training__epochs=60), model="models:/socratic-gemma/1")
        assert contents(output.folder) == before
        filler.unlink()
        output.record(CONFIG, model="models:/socratic-gemma/1")
        assert output.state()["model"] == "models:/socratic-gemma/1"


def test_nothing_is_written_through_a_link_that_lies_beside(begun: OutputDir, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    (begun.folder / ".run.yaml.new").symlink_to(victim)
    begun.record(CONFIG, model="models:/socratic-gemma/1")
    assert victim.read_text(encoding="utf-8") == "mine"
    assert not (begun.folder / "run.yaml").is_symlink()
