"""A packed batch: examples laid end to end in one row, with no padding.

Shape letters: N tokens of all examples, M labelled tokens, 1 the single row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class PackedBatch:
    """Examples end to end, and which of their tokens carry loss.

    `predictors_M` are the positions whose NEXT token carries loss and `labels_M` those next tokens; the last token of
    an example predicts nothing, so no loss ever crosses from one example into the next.
    """

    input_ids_1N: torch.Tensor
    position_ids_1N: torch.Tensor
    lengths: tuple[int, ...]
    predictors_M: torch.Tensor
    labels_M: torch.Tensor

    @classmethod
    def from_examples(cls, examples: Sequence[tuple[Any, Any]]) -> PackedBatch:
        """Lay `(ids, trained_mask)` pairs end to end; token 0 of an example carries no loss, whatever its mask says.

        Raises ValueError where there is no example, one is empty, or ids and mask differ in length.
        """
        if not examples:
            raise ValueError("a packed batch needs at least one example")
        ids, positions, trained = [], [], []
        for example_ids, example_mask in examples:
            ids_T = torch.as_tensor(example_ids, dtype=torch.int64)
            mask_T = torch.as_tensor(example_mask, dtype=torch.bool).clone()
            if ids_T.ndim != 1 or not len(ids_T) or ids_T.shape != mask_T.shape:
                raise ValueError(f"an example needs one mask value per token: {ids_T.shape} ids, {mask_T.shape} mask")
            mask_T[0] = False
            ids.append(ids_T)
            positions.append(torch.arange(len(ids_T)))
            trained.append(mask_T)
        ids_N = torch.cat(ids)
        labelled_M = torch.cat(trained).nonzero()[:, 0]
        lengths = tuple(len(ids_T) for ids_T in ids)
        return cls(ids_N[None], torch.cat(positions)[None], lengths, labelled_M - 1, ids_N[labelled_M])

    @property
    def device(self) -> torch.device:
        return self.input_ids_1N.device

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        if self.device == torch.device(device):
            return self
        moved = [
            t.to(device, non_blocking=True)
            for t in (self.input_ids_1N, self.position_ids_1N, self.predictors_M, self.labels_M)
        ]
        return PackedBatch(moved[0], moved[1], self.lengths, moved[2], moved[3])

    def split(self, most: int) -> Iterator[PackedBatch]:
        """Smaller batches of whole examples, each of at most `most` tokens (a longer example stays alone)."""
        first = start = end = 0
        for index, length in enumerate(self.lengths):
            if end > start and end + length - start > most:
                yield self._part(first, index, start, end)
                first, start = index, end
            end += length
        yield self._part(first, len(self.lengths), start, end)

    def _part(self, first: int, last: int, start: int, end: int) -> PackedBatch:
        inside_M = (self.predictors_M >= start) & (self.predictors_M < end)
        return PackedBatch(
            self.input_ids_1N[:, start:end],
            self.position_ids_1N[:, start:end],
            self.lengths[first:last],
            self.predictors_M[inside_M] - start,
            self.labels_M[inside_M],
        )
