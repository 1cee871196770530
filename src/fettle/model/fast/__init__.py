"""Exact, optional speed-up of training on packed batches, and their loss for any causal language model."""

from fettle.model.fast.batch import PackedBatch
from fettle.model.fast.exchange import accelerate, restore
from fettle.model.fast.loss import packed_loss, packed_outcome

__all__ = ["PackedBatch", "accelerate", "packed_loss", "packed_outcome", "restore"]
