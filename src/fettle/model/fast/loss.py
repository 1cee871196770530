"""The loss of a packed batch, for any causal language model.

Shape letters: M labelled tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fettle.model.fast.batch import PackedBatch
from fettle.model.fast.cross_entropy import cross_entropy_sum
from fettle.model.fast.decoder import Call
from fettle.model.fast.exchange import fast_model
from fettle.model.fast.packing import Way, examples_stay_apart, labelled_logits, packing_way


def packed_loss(model: nn.Module, batch: PackedBatch) -> torch.Tensor:
    """Sum of the cross entropies of all labels: a differentiable float32 scalar (float64 for a float64 model).

    Divide by the number of labels of the whole optimizer step, not of this batch, for a token-weighted mean.
    """
    call = _fast_call(model, batch, outcome=False)
    if call is not None:
        loss: torch.Tensor = model(input_ids=batch.input_ids_1N, fettle_packed=call)
        return loss
    pieces = [cross_entropy_sum(logits_MV, labels_M) for logits_MV, labels_M in labelled_logits(model, batch)]
    return torch.stack(pieces).sum()


@torch.no_grad()
def packed_outcome(model: nn.Module, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross entropy, and how many labels are the model's most likely token; no gradient.

    The model is run in the mode it is in: call `model.eval()` first.
    """
    call = _fast_call(model, batch, outcome=True)
    if call is not None:
        outcome: tuple[torch.Tensor, torch.Tensor] = model(input_ids=batch.input_ids_1N, fettle_packed=call)
        return outcome
    losses, correct = [], []
    for logits_MV, labels_M in labelled_logits(model, batch):
        losses.append(cross_entropy_sum(logits_MV, labels_M))
        correct.append((logits_MV.argmax(-1) == labels_M).sum())
    return torch.stack(losses).sum(), torch.stack(correct).sum()


def _fast_call(model: nn.Module, batch: PackedBatch, outcome: bool) -> Any:
    """The marked call for exchanged layers; None where there are none or they would not be exact."""
    fast = fast_model(model)
    if fast is None or not fast.ready() or not examples_stay_apart(fast.causal.config, batch.lengths):
        return None
    # Off the CPU the model's own attention runs, which keeps examples apart by their positions alone.
    own_attention = batch.device.type != "cpu"
    if own_attention and packing_way(model) is not Way.PACKED:
        return None
    return Call(batch, own_attention=own_attention, outcome=outcome)
