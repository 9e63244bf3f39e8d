"""Encoded dialogues -> the tensors of one forward pass. Packed rows hold several dialogues, none of which sees another.

In a packed row the positions begin again at 0 with each dialogue, and there is neither an attention mask nor a cache: so
transformers tells the dialogues apart by their positions (`masking_utils.find_packed_sequence_indices`; flash attention, in
a single row, by `position_ids`). Which dialogues make a batch is decided before; how they lie in it changes no number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from socratic_mlflow.tokens import IGNORED

if TYPE_CHECKING:
    import torch

# One dialogue: `input_ids` and `labels`, of equal length.
Features = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Packed:
    """Collates dialogues into rows without padding between them.

    A row is as long as the longest dialogue, because eager attention costs the square of a row; in `one_row` all dialogues
    stand in a single one, without any padding, for attention kernels that know where each begins.
    """

    pad_token_id: int
    one_row: bool = False

    def __call__(self, features: Sequence[Features]) -> dict[str, torch.Tensor]:
        """{'input_ids', 'position_ids', 'labels'}, each of shape (rows, length of the longest row), int64."""
        import torch

        lengths = [len(feature["input_ids"]) for feature in features]
        rows = fill_rows(lengths, sum(lengths) if self.one_row else max(lengths))
        width = max(sum(lengths[index] for index in row) for row in rows)
        return {name: torch.tensor(cells) for name, cells in self._cells(features, rows, width).items()}

    def _cells(self, features: Sequence[Features], rows: Sequence[Sequence[int]], width: int) -> dict[str, list[list[int]]]:
        cells: dict[str, list[list[int]]] = {"input_ids": [], "position_ids": [], "labels": []}
        for row in rows:
            ids = [token for index in row for token in features[index]["input_ids"]]
            labels = [label for index in row for label in features[index]["labels"]]
            positions = [place for index in row for place in range(len(features[index]["input_ids"]))]
            rest = width - len(ids)
            cells["input_ids"].append(ids + [self.pad_token_id] * rest)
            cells["labels"].append(labels + [IGNORED] * rest)
            # Padding is a dialogue of its own, so that nothing else attends to it.
            cells["position_ids"].append(positions + list(range(rest)))
        return cells


@dataclass(frozen=True)
class Padded:
    """Collates each dialogue into a row of its own, padded on the right to the longest."""

    pad_token_id: int

    def __call__(self, features: Sequence[Features]) -> dict[str, torch.Tensor]:
        """{'input_ids', 'attention_mask', 'labels'}, each of shape (dialogues, length of the longest), int64."""
        import torch

        width = max(len(feature["input_ids"]) for feature in features)
        cells: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for feature in features:
            length, rest = len(feature["input_ids"]), width - len(feature["input_ids"])
            cells["input_ids"].append([*feature["input_ids"], *[self.pad_token_id] * rest])
            cells["attention_mask"].append([1] * length + [0] * rest)
            cells["labels"].append([*feature["labels"], *[IGNORED] * rest])
        return {name: torch.tensor(rows) for name, rows in cells.items()}


def fill_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The indices of `lengths` in rows of at most `capacity` in sum: each, from the longest to the shortest, goes into the
    first row that has room (first fit decreasing; Johnson 1973, at most 11/9 of the fewest rows, and 4 more)."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((row for row, left in enumerate(room) if left >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows
