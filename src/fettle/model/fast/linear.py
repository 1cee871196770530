"""Linear layers, with or without LoRA, several on one input.

Shape letters: N rows, I inputs, O outputs, R rank of an adapter.
y = x W^T + s (x A^T) B^T. The adapter is added into the product's own memory and never merged into W: as cheap as
merging (measured), and in bfloat16 a merged W + sBA would round small updates away. What needs no gradient gets none.
Layers on one input share its gradient; one product for all of them (q, k and v stacked) measured no faster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of a matrix product on `x`: autocast's where it is on, else its own."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


@dataclass(frozen=True)
class Weights:
    """What one linear layer computes with at this moment."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor | None
    down_RI: torch.Tensor | None = None
    up_OR: torch.Tensor | None = None
    scaling: float = 1.0
    dropout: float = 0.0

    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        return self.weight_OI, self.bias_O, self.down_RI, self.up_OR


def read_weights(module: Any) -> Weights | None:
    """The weights of a plain linear layer or of a peft LoRA layer round one; None for what this file cannot compute."""
    if type(module) is nn.Linear:
        return None if _watched(module) else Weights(module.weight, module.bias)
    # peft is imported by whoever made the layer; nobody pays for its import here.
    lora: Any = sys.modules.get("peft.tuners.lora.layer")
    if lora is None or type(module) is not lora.Linear or type(module.base_layer) is not nn.Linear or _watched(module):
        return None
    base = module.base_layer
    active = [name for name in module.active_adapters if name in module.lora_A]
    if module.disable_adapters or module.merged or not active:
        # Disabling while merged makes peft unmerge: leave that to peft.
        return None if module.disable_adapters and module.merged else Weights(base.weight, base.bias)
    return _one_adapter(module, active)


def _one_adapter(module: Any, active: Sequence[str]) -> Weights | None:
    if len(active) > 1 or active[0] in module.lora_variant or module.fan_in_fan_out:
        return None
    name = active[0]
    down, up, dropout = module.lora_A[name], module.lora_B[name], module.lora_dropout[name]
    plain = all(type(part) is nn.Linear and part._parameters["bias"] is None for part in (down, up))
    if not plain or any(_watched(part) for part in (module.base_layer, down, up)):
        return None
    rate = 0.0 if type(dropout) is nn.Identity or not dropout.training else dropout.p
    base = module.base_layer
    return Weights(base.weight, base.bias, down.weight, up.weight, float(module.scaling[name]), rate)


def _watched(module: Any) -> bool:
    """Whether somebody hangs on this module's calls (hooks, offloading, a replaced forward): then it must be called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in module.__dict__
    )


class _Project(torch.autograd.Function):
    """All layers of `tensors` (four each, as in Weights.tensors) on one input; `residual` is added to the only one."""

    @staticmethod
    def forward(ctx: Any, x_NI: torch.Tensor, dropped_NI: Any, residual: Any, scalings: Any, *tensors: Any) -> Any:
        dtype = compute_dtype(x_NI)
        ctx.dtypes = [None if t is None else t.dtype for t in (x_NI, *tensors)]
        ctx.scalings = scalings
        x = x_NI.to(dtype)
        dropped = x if dropped_NI is None else dropped_NI.to(dtype)
        cast: list[Any] = [None if t is None else t.to(dtype) for t in tensors]
        outputs, inner = [], []
        for index, scaling in enumerate(scalings):
            weight, bias, down, up = cast[4 * index : 4 * index + 4]
            y = _product(x, weight, bias, residual)
            if down is not None:
                inner.append(dropped @ down.t())
                y.addmm_(inner[-1], up.t(), alpha=scaling)
            else:
                inner.append(None)
            outputs.append(y)
        # Only what some gradient is made of is kept: a frozen layer without adapter keeps no activation.
        uses_x = any(ctx.needs_input_grad[4 + i] for i in range(len(tensors)) if i % 4 in (0, 2))
        ctx.save_for_backward(x if uses_x else None, dropped if uses_x else None, *cast, *inner)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, dropped, *rest = ctx.saved_tensors
        count = len(ctx.scalings)
        cast, inner = rest[: 4 * count], rest[4 * count :]
        needs_x, needs_dropped, needs_residual, _, *needs = ctx.needs_input_grad
        grad_x: Any = None
        grad_dropped: Any = None
        result: list[torch.Tensor | None] = []
        for index, (scaling, grad) in enumerate(zip(ctx.scalings, grads, strict=True)):
            weight, _, down, up = cast[4 * index : 4 * index + 4]
            grad = grad.to(weight.dtype)
            if needs_x:
                grad_x = grad @ weight if grad_x is None else grad_x.addmm_(grad, weight)
            grad_down = grad_up = None
            if down is not None:
                through = grad @ up
                grad_up = grad.t() @ inner[index] * scaling
                grad_down = through.t() @ dropped * scaling
                if needs_dropped:
                    part = through @ down * scaling
                    grad_dropped = part if grad_dropped is None else grad_dropped + part
                elif needs_x:
                    grad_x.addmm_(through, down, alpha=scaling)
            grad_weight = grad.t() @ x if needs[4 * index] else None
            grad_bias = grad.sum(0) if needs[4 * index + 1] else None
            result += [grad_weight, grad_bias, grad_down, grad_up]
        result = [None if g is None else g.to(dtype) for g, dtype in zip(result, ctx.dtypes[1:], strict=True)]
        return grad_x, grad_dropped, grads[0] if needs_residual else None, None, *result


_project: Callable[..., tuple[torch.Tensor, ...]] = _Project.apply


def _product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None
) -> torch.Tensor:
    if bias is not None:
        return torch.addmm(bias, x, weight.t())
    if residual is not None:
        return torch.addmm(residual, x, weight.t())
    return x @ weight.t()


def project(x_NI: torch.Tensor, layers: Sequence[Weights]) -> tuple[torch.Tensor, ...]:
    """`layers` applied to the same input; one pass forward, one shared input gradient backward."""
    if any(layer.dropout for layer in layers):  # each adapter drops its own elements, as in peft
        return tuple(_apply(x_NI, None, [layer])[0] for layer in layers)
    return _apply(x_NI, None, layers)


def project_onto(residual_NO: torch.Tensor, x_NI: torch.Tensor, layer: Weights) -> torch.Tensor:
    """`residual + layer(x)`, added inside the product where dtypes and bias allow."""
    if layer.bias_O is None and residual_NO.dtype == compute_dtype(x_NI):
        return _apply(x_NI, residual_NO, [layer])[0]
    return residual_NO + _apply(x_NI, None, [layer])[0]


def _apply(x_NI: torch.Tensor, residual_NO: torch.Tensor | None, layers: Sequence[Weights]) -> tuple[torch.Tensor, ...]:
    dropout = layers[0].dropout
    dropped_NI = F.dropout(x_NI, dropout) if dropout else None
    tensors = [tensor for layer in layers for tensor in layer.tensors()]
    return _project(x_NI, dropped_NI, residual_NO, tuple(layer.scaling for layer in layers), *tensors)
