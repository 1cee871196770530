"""Exchanging the parts of a known model for faster ones, and putting them back.

Only instances are touched, never classes: another model in the same process stays as it is. What is exchanged acts on
calls that carry `fettle_packed` alone, so that generation, padded batches and saving see the model's own code.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import nn

from fettle.model.fast.cross_entropy import cross_entropy_sum, fused_cross_entropy, head_outcome
from fettle.model.fast.decoder import LAYER_CLASSES, Call, FastLayer
from fettle.model.fast.linear import read_weights

# Families whose logits are lm_head(hidden) and nothing else (no capping, no scale).
_PLAIN_HEADS = frozenset(f"{family}ForCausalLM" for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma3"))


def causal_model(model: nn.Module) -> Any:
    """The transformers model inside wrappers of peft and data-parallel training, or the model itself."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    peft: Any = sys.modules.get("peft")  # whoever wrapped the model has imported it; others need not pay for it
    if peft is not None and isinstance(model, peft.PeftModel | peft.PeftMixedModel):
        return model.get_base_model()
    return model


@dataclass(eq=False)
class FastModel:
    """The forward of a causal model whose layers are exchanged."""

    causal: Any
    layers: list[FastLayer]

    def __call__(self, *args: Any, fettle_packed: Call | None = None, **kwargs: Any) -> Any:
        if fettle_packed is None:
            return type(self.causal).forward(self.causal, *args, **kwargs)
        batch = fettle_packed.batch
        return self.loss_or_outcome(
            fettle_packed, {"input_ids": batch.input_ids_1N, "position_ids": batch.position_ids_1N}
        )

    @property
    def __signature__(self) -> inspect.Signature:
        """The model's own: generation and trainers read from it what they may pass."""
        return inspect.signature(MethodType(type(self.causal).forward, self.causal))

    def ready(self) -> bool:
        """Whether a packed call would be exact now: adapters may have been merged since, or dropout switched on."""
        return all(fast.ready() for fast in self.layers)

    def hidden_states(self, call: Call, inputs: dict[str, Any]) -> torch.Tensor:
        """Final hidden states at labelled positions, (M, H)."""
        batch = call.batch
        # A mask that is already four-dimensional keeps the model from building the N x N one nobody reads.
        mask = None if call.own_attention else batch.input_ids_1N.new_zeros(1, 1, 1, 1)
        decoder = self.causal.get_decoder()
        inputs = inputs | {"attention_mask": mask, "use_cache": False, "fettle_packed": call}
        hidden_MH: torch.Tensor = decoder(**inputs).last_hidden_state[0]
        return hidden_MH

    def loss_or_outcome(self, call: Call, inputs: dict[str, Any]) -> Any:
        """The summed loss of a packed call, or its outcome."""
        hidden_MH, labels_M = self.hidden_states(call, inputs), call.batch.labels_M
        head = self.causal.get_output_embeddings()
        weights = read_weights(head) if type(head) is nn.Linear else None
        if weights is not None and weights.bias_O is None:
            act: Callable[..., Any] = head_outcome if call.outcome else fused_cross_entropy
            return act(hidden_MH, weights.weight_OI, labels_M)
        logits_MV = head(hidden_MH)
        loss = cross_entropy_sum(logits_MV, labels_M)
        return (loss, (logits_MV.argmax(-1) == labels_M).sum()) if call.outcome else loss


def fast_model(model: nn.Module) -> FastModel | None:
    """What `accelerate` left on a model, if anything."""
    forward = causal_model(model).__dict__.get("forward")
    return forward if isinstance(forward, FastModel) else None


def accelerate(model: nn.Module) -> list[str]:
    """Exchange what is known for exact faster parts; says in words what was done ([] where the model is not known).

    Once only: a second call says [] and changes nothing. `restore` undoes it.
    """
    causal = causal_model(model)
    if not _known(causal, _PLAIN_HEADS) or getattr(causal.config, "final_logit_softcapping", None) is not None:
        return []
    layers = list(causal.get_decoder().layers)
    if not all(_known(layer, LAYER_CLASSES) for layer in layers):
        return []
    exchanged = [FastLayer(layer, last=index + 1 == len(layers)) for index, layer in enumerate(layers)]
    if any(fast.weights() is None for fast in exchanged):
        return []
    for fast in exchanged:
        fast.layer.forward = fast
    causal.forward = FastModel(causal, exchanged)
    return _words(causal, exchanged)


def _words(causal: nn.Module, exchanged: list[FastLayer]) -> list[str]:
    adapters = sum(weights.down_RI is not None for fast in exchanged for weights in fast.weights() or ())
    on_cpu = next(causal.parameters()).device.type == "cpu"
    return [
        f"{len(exchanged)} decoder layers run on packed rows, the last one only where a label is predicted",
        *(["attention runs example by example"] if on_cpu else []),
        *([f"{adapters} LoRA layers are computed in one step each"] if adapters else []),
        "cross entropy is taken in chunks, without keeping logits",
    ]


def _known(module: nn.Module, names: frozenset[str]) -> bool:
    kind = type(module)
    return (
        kind.__module__.startswith("transformers.models.")
        and kind.__name__ in names
        and "forward" not in module.__dict__
    )


def restore(model: nn.Module) -> None:
    """Put everything back as it was before `accelerate`."""
    fast = fast_model(model)
    if fast is None:
        return
    del fast.causal.forward
    for exchanged in fast.layers:
        del exchanged.layer.forward
