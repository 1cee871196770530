"""The learning rate at every step: a pure function of the step, so that a resumed run needs no state for it."""

from __future__ import annotations

import math

from fettle.training.config import LearningRateScheduler


def factor(section: LearningRateScheduler, step: int, total: int, rate: float, warmup: int) -> float:
    """What the learning rate is multiplied with at a step.

    Args:
        step: optimizer steps already taken, from 0.
        total: steps of the whole run.
        rate: the trainer's learning rate (some shapes are given in absolute rates).
        warmup: steps of the linear warm-up; shapes with a warm-up of their own do not use it.
    """
    kind = section.decay
    if kind == "one_cycle":
        return _one_cycle(section, step, total, rate)
    if kind == "wsd":
        return _warmup_stable_decay(section, step, total)
    if kind == "inverse_sqrt":
        scale = max(1, section.inverse_sqrt_warmup_steps)
        return min((step + 1) / scale, math.sqrt(scale / max(step + 1, scale)))
    if step < warmup:
        return (step + 1) / warmup
    after, span = step - warmup, max(1, total - warmup)
    if kind == "linear":
        return max(0.0, 1 - after / span)
    if kind == "exponential":
        powers = after / section.decay_steps
        return float(section.decay_rate ** (math.floor(powers) if section.staircase else powers))
    if kind == "polynomial":
        end = section.polynomial_end_lr / rate if rate else 0.0
        return float(end + (1 - end) * max(0.0, 1 - after / span) ** section.polynomial_power)
    if kind == "cosine":
        lowest = section.eta_min / rate if rate else 0.0
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * _cycle(section, after, span))) / 2
    return 1.0


def warmup_steps(section: LearningRateScheduler, total: int, steps_per_evaluation: int) -> int:
    """Steps of the linear warm-up."""
    if section.warmup_evaluations:
        return section.warmup_evaluations * steps_per_evaluation
    return math.ceil(total * section.warmup_fraction)


def _cycle(section: LearningRateScheduler, after: int, span: int) -> float:
    """How far (0 to 1) the current cosine cycle has come (SGDR, arXiv 1608.03983)."""
    if section.t_0 is None:
        return min(1.0, after / span)
    length = section.t_0
    while after >= length:
        after -= length
        length *= section.t_mult
    return after / length


def _one_cycle(section: LearningRateScheduler, step: int, total: int, rate: float) -> float:
    """Up to the top and down again along cosines (arXiv 1708.07120)."""
    top = (section.max_lr / rate) if section.max_lr is not None and rate else 1.0
    start, end = top / section.div_factor, top / section.div_factor / section.final_div_factor
    climb = max(1.0, section.pct_start * total - 1)
    if step <= climb:
        return _between(start, top, step / climb)
    return _between(top, end, min(1.0, (step - climb) / max(1.0, total - 1 - climb)))


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def _warmup_stable_decay(section: LearningRateScheduler, step: int, total: int) -> float:
    """Climb, stay, fall linearly (arXiv 2404.06395)."""
    climb = section.wsd_warmup_fraction * total
    fall = section.wsd_decay_fraction * total
    if step < climb:
        return min(1.0, (step + 1) / max(1.0, climb))
    if step < total - fall:
        return 1.0
    return max(0.0, (total - step) / max(1.0, fall))
