"""Training and held-out dialogues: one source on one side, the asked-for share, the same for the same seed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic_mlflow.dialogues import Dialogue, read_dialogues, split


def dialogues_of(*sizes: int) -> list[Dialogue]:
    """As many dialogues of each source as `sizes` says, the sources interleaved."""
    pairs = sorted((number, source) for source, size in enumerate(sizes) for number in range(size))
    return [
        Dialogue(({"role": "user", "content": "a"}, {"role": "model", "content": "b"}), f"source {source}", f"line {line}")
        for line, (_, source) in enumerate(pairs)
    ]


def places(dialogues: list[Dialogue]) -> list[str]:
    return [dialogue.place for dialogue in dialogues]


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=30),
    st.floats(0.001, 0.9),
    st.integers(0, 2**32 - 1),
)
def test_sides_share_no_source_lose_nothing_and_are_never_empty(sizes: list[int], share: float, seed: int) -> None:
    dialogues = dialogues_of(*sizes)
    train, held_out = split(dialogues, share, seed)
    assert train
    assert held_out
    assert {d.source for d in train}.isdisjoint(d.source for d in held_out)
    assert sorted(places(train + held_out)) == sorted(places(dialogues))
    assert all(side == [d for d in dialogues if d in side] for side in (train, held_out))
    # Never above the share, rounded up, by more than the smallest source that has to be held out.
    assert len(held_out) <= max(math.ceil(share * len(dialogues)), min(sizes))


@given(st.integers(2, 400), st.floats(0.001, 0.9), st.integers(0, 2**32 - 1))
def test_the_share_is_exact_where_every_dialogue_is_its_own_source(count: int, share: float, seed: int) -> None:
    _, held_out = split(dialogues_of(*[1] * count), share, seed)
    assert len(held_out) == min(math.ceil(share * count), count - 1)


@pytest.mark.parametrize("seed", range(10))
def test_a_giant_source_is_not_held_out_whole(seed: int) -> None:
    train, held_out = split(dialogues_of(90, 5, 5), 0.1, seed)
    assert (len(train), len(held_out)) == (90, 10)


def test_the_same_seed_splits_alike_and_another_one_does_not() -> None:
    dialogues = dialogues_of(*[1] * 100)
    assert split(dialogues, 0.2, 42) == split(dialogues, 0.2, 42)
    held_out = {tuple(places(split(dialogues, 0.2, seed)[1])) for seed in range(20)}
    assert len(held_out) == 20


def test_the_order_of_the_file_does_not_change_who_is_held_out() -> None:
    dialogues = dialogues_of(*[2] * 30)
    forwards = {d.source for d in split(dialogues, 0.2, 1)[1]}
    backwards = {d.source for d in split(dialogues[::-1], 0.2, 1)[1]}
    assert forwards == backwards


@pytest.mark.parametrize("dialogues", [[], dialogues_of(1), dialogues_of(7)])
def test_one_source_cannot_be_split(dialogues: list[Dialogue]) -> None:
    with pytest.raises(ValueError, match="at least two sources"):
        split(dialogues, 0.2, 42)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_the_real_dialogues_are_held_out_by_source(shared_data: Path, seed: int) -> None:
    dialogues = read_dialogues(str(shared_data / "dialogues_dev.json")).dialogues
    train, held_out = split(dialogues, 0.2, seed)
    assert len(held_out) / len(dialogues) == pytest.approx(0.2, abs=0.01)
    assert {d.source for d in train}.isdisjoint(d.source for d in held_out)
