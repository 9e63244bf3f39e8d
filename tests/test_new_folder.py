"""A folder that is there whole or not at all."""

from __future__ import annotations

import pytest

from socratic_mlflow.new_folder import check_free, new_folder


def test_an_interrupted_export_leaves_nothing(tmp_path):
    place = check_free(str(tmp_path / "deep" / "out"))
    with pytest.raises(KeyboardInterrupt), new_folder(place) as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep"]
    assert not place.exists()


def test_what_came_there_meanwhile_is_left_alone(tmp_path):
    place = check_free(str(tmp_path / "out"))
    with pytest.raises(ValueError, match="something was put there meanwhile"), new_folder(place) as folder:
        (folder / "ours").write_text("ours")
        place.mkdir()
        (place / "theirs").write_text("theirs")
    assert set(tmp_path.rglob("*")) == {place, place / "theirs"}
