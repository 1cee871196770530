"""How a model takes a packed batch without letting examples see one another.

Shape letters: B examples, T tokens of the longest, M labelled tokens, V vocabulary, N tokens of all examples.
Restarting position_ids make transformers build a block-diagonal mask, but not in every family, and code from elsewhere
may do anything: so each model is tried once on a few tokens, and falls back to padded rows, then to one example a call.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import nn

from fettle.model.fast.batch import PackedBatch
from fettle.model.fast.exchange import causal_model

_IGNORED = -1


class Way(Enum):
    """How examples are laid out for a model."""

    PACKED = "end to end in one row"
    PADDED = "one row each, padded on the right"
    ALONE = "one call each"


_tried: weakref.WeakKeyDictionary[nn.Module, dict[Any, Way]] = weakref.WeakKeyDictionary()


def packing_way(model: nn.Module) -> Way:
    """The cheapest layout that is exact for this model, found by trial and remembered."""
    causal = causal_model(model)
    if _has_virtual_tokens(model):
        return Way.ALONE
    weight = next(causal.parameters())
    key = (getattr(causal.config, "_attn_implementation", None), weight.dtype, weight.device)
    known = _tried.setdefault(causal, {})
    if key not in known:
        with _quiet(causal), torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            known[key] = _find_way(causal, weight.device)
    return known[key]


def _has_virtual_tokens(model: nn.Module) -> bool:
    """Prompt tuning and its like put learned tokens before a row: once, wherever the row's examples begin."""
    peft: Any = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel) and bool(model.active_peft_config.is_prompt_learning)


def examples_stay_apart(config: Any, lengths: Sequence[int]) -> bool:
    """False where rotary frequencies depend on the longest example of a call, and one is long enough to change them."""
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer = [r for r in rope.values() if isinstance(r, dict)] or [rope]
    if not any(r.get("rope_type") in ("dynamic", "longrope") for r in by_layer):
        return True
    limits = [r.get("original_max_position_embeddings") or config.max_position_embeddings for r in by_layer]
    return bool(max(lengths) <= min(limits))


def _padding_is_safe(config: Any, lengths: Sequence[int]) -> bool:
    """False where a window can hold nothing but padding: the softmax of nothing is NaN, and it spreads."""
    windows = [getattr(config, name, None) for name in ("sliding_window", "window_size")]
    return max(lengths) - min(lengths) < min((window for window in windows if window), default=sys.maxsize)


def _find_way(causal: Any, device: torch.device) -> Way:
    config = causal.config
    draw = torch.Generator().manual_seed(0)
    vocabulary = config.get_text_config().vocab_size
    ids = [torch.randint(vocabulary, (length,), generator=draw) for length in (5, 7, 6)]
    changed = [(ids[0] + 1) % vocabulary, *ids[1:]]
    batch, other = (PackedBatch.from_examples([(x, x >= 0) for x in xs]).to(device) for xs in (ids, changed))
    alone = _gathered(causal, batch, Way.ALONE)
    # ALiBi measures distance along the row: in half precision a far row start costs digits that few tokens do not show.
    relative_bias = config.model_type in ("bloom", "mpt") or bool(getattr(config, "alibi", False))
    takes_positions = "position_ids" in inspect.signature(causal.forward).parameters
    if takes_positions and not relative_bias and _exact(causal, batch, other, alone, Way.PACKED):
        return Way.PACKED
    return Way.PADDED if _exact(causal, batch, other, alone, Way.PADDED) else Way.ALONE


def _exact(causal: nn.Module, batch: PackedBatch, other: PackedBatch, alone_MV: torch.Tensor, way: Way) -> bool:
    """Whether `way` gives what examples give alone, and other words in the first one change nothing in the rest."""
    try:
        first_MV, second_MV = _gathered(causal, batch, way), _gathered(causal, other, way)
    except (TypeError, ValueError, RuntimeError, IndexError):  # code we do not know refuses this layout in its own way
        return False
    rest = slice(batch.lengths[0] - 1, None)
    scale = alone_MV.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    # float64 gets no closer: normalisations and softmaxes of transformers are float32 inside, whatever the model is.
    rounding = {torch.float64: 1e-5, torch.float32: 1e-4}.get(alone_MV.dtype, 3e-2)
    # The same shapes give the same rounding, unless tokens are sorted to experts, whose shares change with the words.
    leak = rounding if any("experts" in name for name, _ in causal.named_modules()) else 1e-6
    same = (first_MV - alone_MV).abs().max() <= rounding * scale
    apart = (first_MV[rest] - second_MV[rest]).abs().max() <= leak * scale
    return bool(same and apart)


def _gathered(causal: nn.Module, batch: PackedBatch, way: Way) -> torch.Tensor:
    return torch.cat([logits_MV for logits_MV, _ in _LAYOUTS[way](causal, batch)])


@contextmanager
def _quiet(causal: nn.Module) -> Iterator[None]:
    """Evaluation mode, except in bitsandbytes layers: there it repacks 4-bit weights on CPU, for good."""
    modes = [(module, module.training) for module in causal.modules()]
    for module, _ in modes:
        if not type(module).__module__.startswith("bitsandbytes"):
            module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def labelled_logits(model: nn.Module, batch: PackedBatch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits at labelled positions and their labels, in one or more pieces that together hold every label."""
    way = packing_way(model)
    config = causal_model(model).config
    if not examples_stay_apart(config, batch.lengths) or (
        way is Way.PADDED and not _padding_is_safe(config, batch.lengths)
    ):
        way = Way.ALONE
    if way is Way.PACKED:
        for part in batch.split(_row_limit(causal_model(model))):
            yield from _packed(model, part)
    else:
        yield from _LAYOUTS[way](model, batch)


def _row_limit(causal: nn.Module) -> int:
    """Tokens of the longest row: some families (GPT-Neo) cut their causal mask from a table of fixed size."""
    tables = [
        b.shape[-1] for b in causal.buffers() if b.ndim >= 2 and b.dtype == torch.bool and b.shape[-1] == b.shape[-2]
    ]
    return min(tables, default=sys.maxsize)


def _packed(model: nn.Module, batch: PackedBatch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield (
        _logits(model, batch.predictors_M, input_ids=batch.input_ids_1N, position_ids=batch.position_ids_1N)[0],
        batch.labels_M,
    )


def _padded(model: nn.Module, batch: PackedBatch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    lengths = list(batch.lengths)
    ids = nn.utils.rnn.pad_sequence(list(torch.split(batch.input_ids_1N[0], lengths)), batch_first=True)
    attention = torch.arange(ids.shape[1], device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None]
    labels_N = torch.full_like(batch.input_ids_1N[0], _IGNORED)
    labels_N[batch.predictors_M] = batch.labels_M
    labels_BT = nn.utils.rnn.pad_sequence(
        list(torch.split(labels_N, lengths)), batch_first=True, padding_value=_IGNORED
    )
    columns = (labels_BT != _IGNORED).any(0).nonzero()[:, 0]
    labels_BC = labels_BT[:, columns]
    logits_BCV = _logits(model, columns, input_ids=ids, attention_mask=attention.long())
    yield logits_BCV[labels_BC != _IGNORED], labels_BC[labels_BC != _IGNORED]


def _alone(model: nn.Module, batch: PackedBatch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for part in batch.split(1):
        if not len(part.labels_M) and len(batch.labels_M):
            continue
        yield _logits(model, part.predictors_M, input_ids=part.input_ids_1N)[0], part.labels_M


_LAYOUTS: dict[Way, Callable[[nn.Module, PackedBatch], Iterator[tuple[torch.Tensor, torch.Tensor]]]] = {
    Way.PACKED: _packed,
    Way.PADDED: _padded,
    Way.ALONE: _alone,
}


def _logits(model: nn.Module, positions: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    """Logits at `positions` of every row; the model is asked for no others where it can be."""
    kind = type(causal_model(model))
    reads_positions = "logits_to_keep" in inspect.signature(kind.forward).parameters
    logits: torch.Tensor
    if kind.__module__.startswith("transformers.models.") and reads_positions and not _has_virtual_tokens(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=positions).logits
        return logits
    logits = model(**inputs, use_cache=False).logits
    virtual = logits.shape[1] - inputs["input_ids"].shape[1]
    return logits[:, positions + virtual]
