"""From the `trainer.optimizer` section to an optimizer over the weights that train."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from transformers.optimization import Adafactor

from fettle.errors import MissingExtraError
from fettle.training import optimizer_config as sections

_TORCH = {
    "sgd": "SGD", "lbfgs": "LBFGS", "adam": "Adam", "adamw": "AdamW", "adadelta": "Adadelta", "adagrad": "Adagrad",
    "adamax": "Adamax", "nadam": "NAdam", "rmsprop": "RMSprop", "radam": "RAdam",
}  # fmt: skip
_BITSANDBYTES = {
    "sgd_8bit": "SGD8bit", "adam_8bit": "Adam8bit", "paged_adam": "PagedAdam", "paged_adam_8bit": "PagedAdam8bit",
    "adamw_8bit": "AdamW8bit", "paged_adamw": "PagedAdamW", "paged_adamw_8bit": "PagedAdamW8bit", "adagrad_8bit": "Adagrad8bit",
    "rmsprop_8bit": "RMSprop8bit", "lamb": "LAMB", "lamb_8bit": "LAMB8bit", "lars": "LARS", "lars_8bit": "LARS8bit",
    "lion": "Lion", "lion_8bit": "Lion8bit", "paged_lion": "PagedLion", "paged_lion_8bit": "PagedLion8bit",
}  # fmt: skip
NamedWeights = Iterable[tuple[str, torch.nn.Parameter]]


def build(
    section: sections.OptimizerSection | sections.Lbfgs | sections.Adafactor,
    weights: NamedWeights,
    rate: float,
    lora_plus: float | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of a run.

    Args:
        weights: names and weights that train.
        rate: learning rate at the top of the schedule.
        lora_plus: learning rate of LoRA's B matrices over `rate` (arXiv 2402.12354).

    Raises:
        MissingExtraError: the optimizer's package is not installed.
    """
    options = section.model_dump(exclude={"type"})
    kind = str(section.type)  # type: ignore[union-attr]
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    if kind == "lbfgs":  # one group only, and its own state over all weights together
        return torch.optim.LBFGS([weight for _, weight in weights], lr=rate, **options)
    if kind == "muon":
        return _muon(weights, rate, options)
    groups = _groups(weights, rate, options.pop("weight_decay", 0.0), lora_plus)
    if kind == "adafactor":
        return _adafactor(groups, rate, options)
    if kind == "schedule_free_adamw":
        return _library("schedulefree").AdamWScheduleFree(groups, lr=rate, **options)  # type: ignore[no-any-return]
    if kind in _BITSANDBYTES:
        return _bitsandbytes(section, groups, rate, options)
    builder = getattr(torch.optim, _TORCH[kind])
    if kind in ("adam", "adamw", "sgd"):
        options["fused"] = True  # one kernel for all weights
    return builder(groups, lr=rate, **options)  # type: ignore[no-any-return]


def _groups(weights: NamedWeights, rate: float, decay: float, lora_plus: float | None) -> list[dict[str, Any]]:
    """Weights by what they get: decay on matrices only, a faster rate for LoRA's B where asked."""
    sorted_out: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weight in weights:
        faster = lora_plus if lora_plus is not None and ("lora_B" in name or "lora_embedding_B" in name) else 1.0
        sorted_out.setdefault((rate * faster, decay if weight.ndim >= 2 else 0.0), []).append(weight)
    return [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in sorted_out.items()]


def _adafactor(groups: list[dict[str, Any]], rate: float, options: dict[str, Any]) -> torch.optim.Optimizer:
    own = options.pop("lr") or rate
    for group in groups:
        group["lr"] = None if options["relative_step"] else own
    return Adafactor(groups, lr=None if options["relative_step"] else own, **options)  # type: ignore[no-any-return]


def _bitsandbytes(
    section: Any, groups: list[dict[str, Any]], rate: float, options: dict[str, Any]
) -> torch.optim.Optimizer:
    kind = section.type
    builder = getattr(_library("bitsandbytes").optim, _BITSANDBYTES[kind])
    taken = inspect.signature(builder.__init__).parameters
    return builder(groups, lr=rate, **{key: value for key, value in options.items() if key in taken})  # type: ignore[no-any-return]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"trainer.optimizer needs the package {name}: pip install 'fettle[optimizers]'"
        ) from None


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for everything else, as one optimizer.

    Embeddings and the head are no hidden matrices and go to AdamW (Jordan et al., "Muon", 2024).
    """

    def __init__(self, muon: torch.optim.Optimizer | None, adamw: torch.optim.Optimizer | None) -> None:
        self.parts = [part for part in (muon, adamw) if part is not None]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        for part, groups in zip(self.parts, self._by_part(), strict=True):
            part.param_groups = groups

    def _by_part(self) -> list[list[dict[str, Any]]]:
        found, position = [], 0
        for part in self.parts:
            count = len(part.param_groups)
            found.append(self.param_groups[position : position + count])
            position += count
        return found

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _muon(weights: NamedWeights, rate: float, options: dict[str, Any]) -> torch.optim.Optimizer:
    decay = options.pop("weight_decay")
    hidden: list[tuple[str, torch.nn.Parameter]] = []
    rest: list[tuple[str, torch.nn.Parameter]] = []
    for name, weight in weights:
        is_hidden = weight.ndim == 2 and not any(
            word in name for word in ("embed", "lm_head", "wte", "wpe", "embed_out")
        )
        (hidden if is_hidden else rest).append((name, weight))
    muon = (
        torch.optim.Muon([weight for _, weight in hidden], lr=rate, weight_decay=decay, **options) if hidden else None
    )
    adamw = torch.optim.AdamW(_groups(rest, rate, decay, None), lr=rate, fused=True) if rest else None
    return MuonWithAdamW(muon, adamw)
