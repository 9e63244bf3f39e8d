"""A folder that is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from socratic_mlflow.new_folder import check_free, new_folder


def test_an_interrupted_export_leaves_nothing(tmp_path):
    place = check_free(str(tmp_path / "deep" / "out"))
    with pytest.raises(KeyboardInterrupt), new_folder(place) as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep"]
    assert not place.exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_what_came_there_meanwhile_is_left_alone(tmp_path, was_there):
    if was_there:
        (tmp_path / "out").mkdir()
    place = check_free(str(tmp_path / "out"))
    with pytest.raises(ValueError, match="something was put there meanwhile"), new_folder(place) as folder:
        (folder / "name").write_text("ours")
        place.mkdir(exist_ok=True)
        (place / "name").write_text("theirs")
    assert set(tmp_path.rglob("*")) == {place, place / "name"}
    assert (place / "name").read_text() == "theirs"


def test_two_at_once_do_not_write_into_one_another(tmp_path):
    place = check_free(str(tmp_path / "out"))
    with new_folder(place) as folder:
        (folder / "first").write_text("first")
        with pytest.raises(ValueError, match="another export writes there"), new_folder(place):
            pytest.fail("it was let in")
    assert [path.name for path in place.iterdir()] == ["first"]


def test_a_place_where_no_folder_can_be_made_is_one_line():
    with pytest.raises(ValueError, match="/proc/out: cannot be made"), new_folder(Path("/proc/out")):
        pytest.fail("it was made")
