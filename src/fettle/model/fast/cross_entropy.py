"""Cross entropy over a language-model head, in chunks, without keeping the logits.

Shape letters: M labelled positions, H hidden size, V vocabulary, C positions of a chunk.
The gradient of the hidden states is found in the forward pass while a chunk's logits are still in cache (the idea of
Liger Kernel's fused linear cross entropy, arXiv:2410.10989); a frozen head gets no weight gradient at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from fettle.model.fast.linear import compute_dtype

# float32 logits of one chunk: small enough for a CPU's caches, large enough for a full-speed matrix product (measured).
_CHUNK_BYTES = {"cpu": 48 << 20}
_CHUNK_BYTES_ELSEWHERE = 512 << 20


def chunk_rows(hidden: torch.Tensor, vocabulary: int) -> int:
    """Positions whose float32 logits fit one chunk."""
    limit = _CHUNK_BYTES.get(hidden.device.type, _CHUNK_BYTES_ELSEWHERE)
    return max(64, limit // (4 * vocabulary))


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_MH: torch.Tensor, weight_VH: torch.Tensor, labels_M: torch.Tensor) -> torch.Tensor:
        ctx.dtypes = hidden_MH.dtype, weight_VH.dtype
        dtype = compute_dtype(hidden_MH)
        hidden_MH, weight_VH = hidden_MH.to(dtype), weight_VH.to(dtype)
        needs_hidden, needs_weight, _ = ctx.needs_input_grad
        grad_MH = torch.empty_like(hidden_MH) if needs_hidden else None
        grad_VH = torch.zeros_like(weight_VH, dtype=_wide(dtype)) if needs_weight else None
        total = hidden_MH.new_zeros((), dtype=_wide(dtype))
        step = chunk_rows(hidden_MH, len(weight_VH))
        for start in range(0, len(labels_M), step):
            rows = slice(start, start + step)
            loss, error_CV = _loss_and_error(
                hidden_MH[rows] @ weight_VH.t(), labels_M[rows], needs_hidden or needs_weight
            )
            total += loss
            if grad_MH is not None:
                torch.mm(error_CV.to(dtype), weight_VH, out=grad_MH[rows])
            if grad_VH is not None:
                grad_VH += error_CV.to(dtype).t() @ hidden_MH[rows]
        ctx.save_for_backward(grad_MH, grad_VH)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_MH, grad_VH = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (
            None if grad_MH is None else (grad_MH * grad.to(grad_MH.dtype)).to(hidden_dtype),
            None if grad_VH is None else (grad_VH * grad).to(weight_dtype),
            None,
        )


_fused: Callable[..., torch.Tensor] = _FusedCrossEntropy.apply


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _loss_and_error(logits_CV: torch.Tensor, labels_C: torch.Tensor, wanted: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss, and softmax minus one-hot (made in place) where `wanted`."""
    labels_C1 = labels_C[:, None]
    log_p_CV = torch.log_softmax(logits_CV, -1, dtype=_wide(logits_CV.dtype))
    own_C1 = log_p_CV.gather(1, labels_C1)
    if wanted:
        log_p_CV.exp_().scatter_add_(1, labels_C1, torch.full_like(own_C1, -1.0))
    return -own_C1.sum(), log_p_CV


def fused_cross_entropy(hidden_MH: torch.Tensor, weight_VH: torch.Tensor, labels_M: torch.Tensor) -> torch.Tensor:
    """Sum of cross entropies of `hidden_MH @ weight_VH.T` against `labels_M`, in float32 (float64 for float64)."""
    return _fused(hidden_MH, weight_VH, labels_M)


def cross_entropy_sum(logits_MV: torch.Tensor, labels_M: torch.Tensor) -> torch.Tensor:
    """The same sum from logits that exist already."""
    return F.cross_entropy(logits_MV.to(_wide(logits_MV.dtype)), labels_M, reduction="sum")


@torch.no_grad()
def head_outcome(
    hidden_MH: torch.Tensor, weight_VH: torch.Tensor, labels_M: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross entropy, and how many labels are the most likely token, chunk by chunk."""
    dtype = compute_dtype(hidden_MH)
    hidden_MH, weight_VH = hidden_MH.to(dtype), weight_VH.to(dtype)
    total = hidden_MH.new_zeros((), dtype=_wide(dtype))
    correct = labels_M.new_zeros(())
    step = chunk_rows(hidden_MH, len(weight_VH))
    for start in range(0, len(labels_M), step):
        rows = slice(start, start + step)
        logits_CV = hidden_MH[rows] @ weight_VH.t()
        total += cross_entropy_sum(logits_CV, labels_M[rows])
        correct += (logits_CV.argmax(-1) == labels_M[rows]).sum()
    return total, correct
