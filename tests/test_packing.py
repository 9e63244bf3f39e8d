"""Packed rows: nothing lost, nothing seen of a neighbour, and the numbers of dialogues that stand alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from socratic_mlflow.packing import Packed, Padded, fill_rows
from socratic_mlflow.tokens import IGNORED, ChatFormat

FAMILIES = pytest.mark.parametrize("family", tiny.FAMILIES)
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def features(chat: ChatFormat, count: int = 9) -> list[dict[str, list[int]]]:
    encoded = [chat.encode(tiny.dialogue(number)) for number in range(count)]
    return [{"input_ids": item.input_ids, "labels": item.labels} for item in encoded]


def pieces(packed: dict[str, torch.Tensor]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(ids, labels) of each dialogue and of each stretch of padding, told apart by where positions begin again."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for ids, positions, labels in zip(
        *(packed[name].tolist() for name in ("input_ids", "position_ids", "labels")), strict=True
    ):
        starts = [index for index, position in enumerate(positions) if position == 0] + [len(ids)]
        found += [(tuple(ids[a:b]), tuple(labels[a:b])) for a, b in itertools.pairwise(starts)]
    return found


@given(LENGTHS, st.integers(0, 60))
def test_each_dialogue_is_in_one_row_and_no_row_is_too_long(lengths: list[int], more: int) -> None:
    capacity = max(lengths) + more
    rows = fill_rows(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= capacity for row in rows)


@given(LENGTHS)
def test_no_two_rows_would_fit_into_one(lengths: list[int]) -> None:
    filled = sorted(sum(lengths[index] for index in row) for row in fill_rows(lengths, max(lengths)))
    assert all(a + b > max(lengths) for a, b in itertools.pairwise(filled))


@pytest.mark.parametrize("one_row", [False, True])
def test_every_dialogue_stands_whole_in_a_row_with_positions_of_its_own(one_row: bool) -> None:
    chat = ChatFormat(tiny.tokenizer())
    given_ones = features(chat)
    packed = Packed(0, one_row)(given_ones)
    assert len({tuple(cells.shape) for cells in packed.values()}) == 1
    found = pieces(packed)
    wanted = [(tuple(feature["input_ids"]), tuple(feature["labels"])) for feature in given_ones]
    assert sorted(piece for piece in found if set(piece[0]) != {0}) == sorted(wanted)
    assert all(set(labels) == {IGNORED} for ids, labels in found if set(ids) == {0})


def test_rows_are_as_long_as_the_longest_dialogue_and_one_row_has_no_padding() -> None:
    given_ones = features(ChatFormat(tiny.tokenizer()))
    longest = max(len(feature["input_ids"]) for feature in given_ones)
    assert Packed(0)(given_ones)["input_ids"].shape[1] == longest
    single = Packed(0, one_row=True)(given_ones)["input_ids"]
    assert single.shape == (1, sum(len(feature["input_ids"]) for feature in given_ones))


def test_packed_rows_hold_fewer_tokens_than_padded_ones() -> None:
    given_ones = features(ChatFormat(tiny.tokenizer()))
    assert Packed(0)(given_ones)["input_ids"].numel() < Padded(0)(given_ones)["input_ids"].numel()


def logits_by_dialogue(model: Any, packed: dict[str, torch.Tensor]) -> dict[tuple[int, ...], torch.Tensor]:
    with torch.no_grad():
        logits = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False).logits
    found: dict[tuple[int, ...], torch.Tensor] = {}
    for row, ids in enumerate(packed["input_ids"].tolist()):
        positions = packed["position_ids"][row].tolist()
        starts = [index for index, position in enumerate(positions) if position == 0] + [len(ids)]
        found |= {tuple(ids[a:b]): logits[row, a:b] for a, b in itertools.pairwise(starts)}
    return found


@FAMILIES
@pytest.mark.parametrize("one_row", [False, True])
def test_a_dialogue_in_a_packed_row_gets_the_logits_that_it_gets_alone(family: str, one_row: bool) -> None:
    words = tiny.tokenizer(family)
    model, given_ones = tiny.model(family, vocab_size=len(words)).eval(), features(ChatFormat(words))
    together = logits_by_dialogue(model, Packed(0, one_row)(given_ones))
    for feature in given_ones:
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([feature["input_ids"]])).logits[0]
        torch.testing.assert_close(together[tuple(feature["input_ids"])], alone, rtol=0, atol=1e-5)


@FAMILIES
def test_other_words_in_a_neighbour_change_not_one_bit(family: str) -> None:
    words = tiny.tokenizer(family)
    model, first = tiny.model(family, vocab_size=len(words)).eval(), features(ChatFormat(words), 4)
    other = [first[0], *({**feature, "input_ids": feature["input_ids"][::-1]} for feature in first[1:])]
    same = tuple(first[0]["input_ids"])
    found = [logits_by_dialogue(model, Packed(0, one_row=True)(given_ones))[same] for given_ones in (first, other)]
    assert torch.equal(*found)
