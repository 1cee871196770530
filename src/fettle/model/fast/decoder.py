"""Decoder layers of the Llama kind on packed examples: h + attention(norm(h)), then h + mlp(norm(h)).

Shape letters: N tokens, M labelled tokens, H hidden size, D head size, 1 the single row.
A layer's `forward` is replaced on the instance and acts only on calls that carry `fettle_packed`; every other call
(generation, padded batches, evaluation by other tools) reaches the model's own code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fettle.model.fast.attention import (
    Heads,
    Segment,
    allowed_mask,
    chosen_segments,
    packed_attention,
    rotate,
    too_long,
    whole_segments,
)
from fettle.model.fast.batch import PackedBatch
from fettle.model.fast.linear import Weights, project, project_onto, read_weights

# Families whose layers were read and are tested to be exactly this arithmetic.
LAYER_CLASSES = frozenset(
    f"{family}DecoderLayer" for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma3")
)
_LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


Plan = tuple[list[Segment], list[torch.Tensor] | None]


@dataclass
class Call:
    """What one packed call tells the head and every layer; masks are made once and shared by the layers."""

    batch: PackedBatch
    own_attention: bool  # the model's own attention function and mask, as on GPUs
    outcome: bool = False
    _plans: dict[tuple[bool, int | None], Plan] = field(default_factory=dict)

    def plan(self, trimmed: bool, window: int | None, like: torch.Tensor) -> Plan:
        """Segments and their masks: of all tokens, or `trimmed` to those that predict a label."""
        if (trimmed, window) not in self._plans:
            lengths = self.batch.lengths
            segments = chosen_segments(lengths, self.batch.predictors_M) if trimmed else whole_segments(lengths)
            masks = None if too_long(lengths) else [allowed_mask(segment, window, like) for segment in segments]
            self._plans[trimmed, window] = segments, masks
        return self._plans[trimmed, window]


class _GatedProduct(torch.autograd.Function):
    """silu(gate) * up, keeping only its two inputs."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


_gated_product: Callable[..., torch.Tensor] = _GatedProduct.apply


def normalise(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """A family's RMSNorm as one operation; Gemma's multiplies with 1 + weight, in float32."""
    if type(norm).__name__.startswith("Gemma"):
        weight = 1.0 + norm.weight.to(torch.promote_types(norm.weight.dtype, torch.float32))
        return F.rms_norm(x.to(weight.dtype), x.shape[-1:], weight, norm.eps).to(x.dtype)
    # Under autocast the weight is wider than its input, and the result as wide as the weight.
    return F.rms_norm(x.to(norm.weight.dtype), x.shape[-1:], norm.weight, norm.variance_epsilon)


@dataclass(eq=False)
class FastLayer:
    """One decoder layer's faster forward: it takes the place of the instance's `forward`.

    An object and not a function, so that a copied model gets its own with it.
    """

    layer: Any
    last: bool

    def __call__(
        self, hidden_states: torch.Tensor, *args: Any, fettle_packed: Call | None = None, **kwargs: Any
    ) -> Any:
        layer = self.layer
        if fettle_packed is None:
            return type(layer).forward(layer, hidden_states, *args, **kwargs)
        run = partial(_packed_layer, self, fettle_packed, kwargs)
        if layer.gradient_checkpointing and layer.training and not _checkpoints_calls(layer):
            return layer._gradient_checkpointing_func(run, hidden_states)
        return run(hidden_states)

    def weights(self) -> list[Weights] | None:
        """What the seven linear layers compute with now; None where one cannot be computed here."""
        found = [read_weights(self.layer.get_submodule(name)) for name in _LINEARS]
        known = [weights for weights in found if weights is not None]
        return known if len(known) == len(found) else None

    def ready(self) -> bool:
        """Whether every part is still something this file computes exactly."""
        attention = self.layer.self_attn
        config = attention.config
        exact = getattr(config, "attn_logit_softcapping", None) is None and getattr(attention, "is_causal", True)
        dropped = self.layer.training and attention.attention_dropout > 0
        return bool(exact and not dropped and self.weights() is not None)


def _checkpoints_calls(layer: nn.Module) -> bool:
    """Older transformers checkpoint in `__call__`, round any `forward`; newer ones inside the class's `forward`."""
    return type(layer).__call__ is not nn.Module.__call__


def _packed_layer(fast: FastLayer, call: Call, kwargs: dict[str, Any], hidden_1NH: torch.Tensor) -> torch.Tensor:
    layer, weights = fast.layer, fast.weights()
    assert weights is not None, "a packed call needs a model that is ready"
    attended_NQ, hidden_NH = _attend(fast, weights[:3], call, kwargs, hidden_1NH[0])
    post_norms = hasattr(layer, "pre_feedforward_layernorm")  # Gemma 3 normalises what is added, too
    before_mlp = layer.pre_feedforward_layernorm if post_norms else layer.post_attention_layernorm
    after_attention = layer.post_attention_layernorm if post_norms else None
    after_mlp = layer.post_feedforward_layernorm if post_norms else None
    hidden_NH = _add(hidden_NH, attended_NQ, weights[3], after_attention)
    gate, up = project(normalise(before_mlp, hidden_NH), weights[4:6])
    return _add(hidden_NH, _activate(layer.mlp.act_fn, gate, up), weights[6], after_mlp)[None]


def _add(residual_NH: torch.Tensor, x: torch.Tensor, layer: Weights, norm: nn.Module | None) -> torch.Tensor:
    if norm is None:
        return project_onto(residual_NH, x, layer)
    return residual_NH + normalise(norm, project(x, [layer])[0])


def _activate(function: nn.Module, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    if type(function).__name__ in ("SiLU", "SiLUActivation"):
        return _gated_product(gate, up)
    activated: torch.Tensor = function(gate) * up
    return activated


def _attend(
    fast: FastLayer, weights: list[Weights], call: Call, kwargs: dict[str, Any], hidden_NH: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention's features before the output projection, and the hidden states they belong to.

    Nothing reads the last layer's output at positions without label, so there only labelled rows ask and go on.
    """
    attention, chosen_M = fast.layer.self_attn, call.batch.predictors_M
    turn = tuple(part[0] for part in kwargs["position_embeddings"])
    normed_NH = normalise(fast.layer.input_layernorm, hidden_NH)
    if call.own_attention:
        query, key, value = project(normed_NH, weights)
        attended_NQ = _own_attention(attention, query, key, value, turn, kwargs)
        return (attended_NQ[chosen_M], hidden_NH[chosen_M]) if fast.last else (attended_NQ, hidden_NH)
    query_turn = turn
    if fast.last:
        key, value = project(normed_NH, weights[1:])
        (query,) = project(normed_NH[chosen_M], weights[:1])
        hidden_NH, query_turn = hidden_NH[chosen_M], tuple(part[chosen_M] for part in turn)
    else:
        query, key, value = project(normed_NH, weights)
    heads = _heads(attention, query, key)
    query, key = _normalise_heads(attention, query, "q_norm"), _normalise_heads(attention, key, "k_norm")
    segments, masks = call.plan(fast.last, heads.window, value)
    return packed_attention(query, key, value, query_turn, turn, heads, segments, masks), hidden_NH


def _heads(attention: Any, query: torch.Tensor, key: torch.Tensor) -> Heads:
    size = attention.head_dim
    # Mistral keeps its window in the config, the others per layer (None on layers that see everything).
    owner = attention if hasattr(attention, "sliding_window") else attention.config
    window = getattr(owner, "sliding_window", None) if "Llama" not in type(attention).__name__ else None
    return Heads(query.shape[1] // size, key.shape[1] // size, size, attention.scaling, window)


def _normalise_heads(attention: Any, x: torch.Tensor, name: str) -> torch.Tensor:
    """Queries or keys with each head normalised, in the families that do so (Qwen3, Gemma 3)."""
    if not hasattr(attention, name):
        return x
    return normalise(getattr(attention, name), x.view(len(x), -1, attention.head_dim)).flatten(1)


def _own_attention(
    attention: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, turn: Any, kwargs: dict[str, Any]
) -> torch.Tensor:
    """The attention function the model is configured with, on one row with the model's own block-diagonal mask."""
    heads = _heads(attention, query, key)
    q, k = _normalise_heads(attention, query, "q_norm"), _normalise_heads(attention, key, "k_norm")
    q_NHD, k_NGD = rotate(q.view(-1, heads.query, heads.size), *turn), rotate(k.view(-1, heads.key, heads.size), *turn)
    parts = [part.transpose(0, 1)[None] for part in (q_NHD, k_NGD, value.view(-1, heads.key, heads.size))]
    eager = sys.modules[type(attention).__module__].eager_attention_forward
    function = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager)
    mask = kwargs["attention_mask"]
    y_1NHD, _ = function(
        attention,
        *parts,
        mask,
        dropout=0.0,
        scaling=heads.scaling,
        sliding_window=heads.window,
        position_ids=kwargs["position_ids"],
    )
    attended_NQ: torch.Tensor = y_1NHD[0].flatten(1)
    return attended_NQ
