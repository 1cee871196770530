"""One pure function fills in every `auto` of a training run from facts; another says what memory the run needs."""

from __future__ import annotations

from dataclasses import dataclass

from fettle.hardware.facts import DeviceFacts
from fettle.training.config import TrainingSection

LEARNING_RATE_ADAPTER = 2e-4
LEARNING_RATE_FULL = 2e-5
# Beyond this a longer pack no longer fills the device better; it only takes memory.
PACK_TOKENS = {"cpu": 4096, "cuda": 8192}
RESERVE = 0.8  # share of the free memory that is planned with


@dataclass(frozen=True)
class Sizes:
    """What the memory estimate is made of."""

    parameters: int
    trained: int
    """Weights that train."""
    hidden: int
    layers: int
    vocab_size: int


@dataclass(frozen=True)
class Plan:
    """Every `auto` of the trainer section, filled in."""

    precision: str
    learning_rate: float
    effective_batch_size: int
    """Rows per optimizer step."""
    batch_size: int | None
    """Most rows in one forward pass; None is as many as the tokens allow."""
    pack_tokens: int
    """Most tokens in one forward pass, a single longer row excepted."""


def precision(trainer: TrainingSection, device: DeviceFacts) -> str:
    """The arithmetic of a run."""
    sixteen = "bfloat16" if device.bfloat16 or device.kind == "cpu" else "float16"
    if trainer.use_mixed_precision is not None:
        return sixteen if trainer.use_mixed_precision else "float32"
    if trainer.precision != "auto":
        return trainer.precision
    return sixteen if device.kind == "cuda" else "float32"


def static_bytes(sizes: Sizes, arithmetic: str) -> int:
    """Memory of weights, gradients and AdamW's state."""
    frozen = sizes.parameters - min(sizes.trained, sizes.parameters)
    width = 4 if arithmetic == "float32" else 2
    return frozen * width + sizes.trained * (4 + 4 + 8)


def bytes_per_token(sizes: Sizes, arithmetic: str) -> int:
    """Activations kept for the backward pass by one token: per layer about 34 values per hidden unit, and the head's chunk."""
    width = 4 if arithmetic == "float32" else 2
    return sizes.layers * sizes.hidden * 34 * width + sizes.vocab_size * 4


def fill(
    trainer: TrainingSection,
    device: DeviceFacts,
    sizes: Sizes,
    rows: int,
    longest: int,
    mean_length: float,
    adapter: bool,
) -> Plan:
    """Fill in every `auto`.

    Args:
        rows: rows of the training set.
        longest, mean_length: tokens of a row.
    """
    arithmetic = precision(trainer, device)
    rate = trainer.learning_rate
    if rate == "auto":
        rate = LEARNING_RATE_ADAPTER if adapter else LEARNING_RATE_FULL
    room = max(0, int(device.memory * RESERVE) - static_bytes(sizes, arithmetic))
    fits = room // bytes_per_token(sizes, arithmetic)
    tokens = max(longest, min(fits, PACK_TOKENS[device.kind]))
    batch, steps, effective = trainer.batch_size, trainer.gradient_accumulation_steps, trainer.effective_batch_size
    if effective == "auto":
        if batch != "auto":
            effective = batch * (1 if steps == "auto" else steps)
        else:
            largest = largest_batch(trainer, rows, int(fits / max(1.0, mean_length)))
            effective = largest if steps == "auto" else max(steps, largest - largest % steps)
    most = None if batch == "auto" else batch
    if most is None and steps != "auto":
        most = max(1, int(effective) // steps)
    return Plan(arithmetic, float(rate), int(effective), most, int(tokens))


def largest_batch(trainer: TrainingSection, rows: int, fits: int) -> int:
    """The largest power of two of rows that fits, within max_batch_size and 1/32 of the rows."""
    bound = max(1, min(fits, rows // 32))
    if trainer.max_batch_size is not None:
        bound = min(bound, trainer.max_batch_size)
    return 1 << (bound.bit_length() - 1)


def shortage(device: DeviceFacts, sizes: Sizes, arithmetic: str, longest: int) -> str | None:
    """Why a run cannot fit the device, or None when its longest row does."""
    need = static_bytes(sizes, arithmetic) + longest * bytes_per_token(sizes, arithmetic)
    if need <= device.memory:
        return None
    return (
        f"needs about {need / 2**30:.1f} GiB ({sizes.parameters / 1e6:,.0f} M weights, {sizes.trained / 1e6:,.1f} M of them trained, "
        f"rows of up to {longest} tokens), but {device.shown}; use an adapter, precision: bfloat16 or a smaller base model"
    )
