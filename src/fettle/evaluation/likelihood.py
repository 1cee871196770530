"""How likely the model finds the targets: token-weighted loss, perplexity, next-token accuracy (teacher forcing)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch

from fettle.data.pack import best_fit
from fettle.data.store import Split
from fettle.model.fast import PackedBatch, packed_outcome


@dataclass(frozen=True)
class Outcome:
    """What an evaluation adds up: summed cross entropy, right arg-maxes, labelled tokens."""

    loss: float
    correct: int
    labels: int

    def metrics(self) -> dict[str, float]:
        """Means over labelled tokens (a batch with more of them counts more)."""
        mean = self.loss / max(1, self.labels)
        perplexity = float(torch.tensor(mean, dtype=torch.float64).exp())
        return {"loss": mean, "perplexity": perplexity, "next_token_accuracy": self.correct / max(1, self.labels)}


def batch(split: Split, rows: list[int], device: str) -> PackedBatch:
    """The rows end to end, on the device."""
    # copies, because the arrays may be files mapped read-only, which torch does not take
    examples = [(ids.astype(np.int64), trained.copy()) for row in rows for ids, trained in split.examples(row)]
    return PackedBatch.from_examples(examples).to(device)


def likelihood(
    model: torch.nn.Module,
    split: Split,
    device: str,
    pack_tokens: int,
    batch_size: int | None = None,
    most: int | None = None,
) -> Outcome:
    """Summed outcome of a split, or of its first `most` batches.

    Args:
        pack_tokens: most tokens of a forward pass.
        batch_size: most rows of one; None is as many as the tokens allow.
    """
    packs = best_fit([int(length) for length in split.lengths_R], pack_tokens, batch_size)
    if most:  # packs come longest first; a part of them is to be a fair sample, and always the same
        random.Random(0).shuffle(packs)
        packs = packs[:most]
    total, correct, labels = 0.0, 0, 0
    for rows in packs:
        packed = batch(split, rows, device)
        loss, right = packed_outcome(model, packed)
        total += float(loss)
        correct += int(right)
        labels += len(packed.labels_M)
    return Outcome(total, correct, labels)
