"""Next-token cross entropy on the tokens that carry loss: those of the responses, or every one of plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fettle.data.pack import best_fit
from fettle.data.store import Split
from fettle.evaluation.likelihood import Outcome, batch, likelihood
from fettle.model.fast import PackedBatch, packed_loss


@dataclass(frozen=True)
class Supervised:
    """The objective over encoded splits."""

    splits: Mapping[str, Split]
    device: str
    pack_tokens: int
    batch_size: int | None

    def rows(self, split: str) -> int:
        return len(self.splits[split]) if split in self.splits else 0

    def tokens(self, rows: Sequence[int]) -> int:
        """Tokens of training rows."""
        return int(self.splits["training"].lengths_R[list(rows)].sum())

    def labels(self, rows: Sequence[int]) -> int:
        """Tokens of training rows that carry loss."""
        split = self.splits["training"]
        return sum(int(trained[1:].sum()) for row in rows for _, trained in split.examples(row))

    def batches(self, rows: Sequence[int]) -> list[PackedBatch]:
        """Training rows in as few forward passes as memory allows."""
        split = self.splits["training"]
        packs = best_fit([int(split.lengths_R[row]) for row in rows], self.pack_tokens, self.batch_size)
        return [batch(split, [rows[at] for at in pack], self.device) for pack in packs]

    def loss(self, model: torch.nn.Module, packed: PackedBatch) -> torch.Tensor:
        """Summed cross entropy over the labels (a scalar that can be differentiated)."""
        return packed_loss(model, packed)

    def evaluate(self, model: torch.nn.Module, split: str, most: int | None, batch_size: int | None) -> Outcome:
        """Summed outcome of a split, or of its first `most` batches."""
        return likelihood(model, self.splits[split], self.device, self.pack_tokens, batch_size, most)
