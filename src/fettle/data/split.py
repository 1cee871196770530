"""Which row belongs to training, validation and test."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fettle.data.config import FixedSplit, HashSplit, Preprocessing, RandomSplit, StratifySplit
from fettle.data.table import Table
from fettle.errors import DataError

NAMES = ("training", "validation", "test")
Splits = dict[str, list[int]]
_FIXED = {"0": 0, "1": 1, "2": 2, "train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2}


def sample(count: int, section: Preprocessing, seed: int) -> list[int]:
    """The rows to use, in their own order."""
    wanted = count
    if section.sample_size is not None:
        if section.sample_size > count:
            raise DataError(f"preprocessing.sample_size: {section.sample_size} is more than the {count} rows there are")
        wanted = section.sample_size
    elif section.sample_ratio < 1:
        wanted = min(count, max(1, round(count * section.sample_ratio)))
    if wanted == count:
        return list(range(count))
    return sorted(random.Random(f"sample {seed}").sample(range(count), wanted))


def split(table: Table, section: Preprocessing, seed: int) -> Splits:
    """Row indices of each split; the same rows, section and seed always give the same split.

    Raises:
        DataError: the split's column is missing or holds something it cannot divide by.
    """
    chosen = sample(len(table), section, seed)
    how = section.split
    if isinstance(how, RandomSplit):
        order = list(chosen)
        random.Random(f"split {seed}").shuffle(order)
        return _cut(order, how.probabilities)
    cells = table.column(how.column, "preprocessing.split.column")
    if isinstance(how, FixedSplit):
        return _fixed(table, chosen, cells, how)
    if isinstance(how, HashSplit):
        return _hashed(chosen, cells, how)
    if isinstance(how, StratifySplit):
        return _stratified(chosen, cells, how, seed)
    return _cut(sorted(chosen, key=lambda index: _time(table, index, cells[index])), how.probabilities, in_order=True)


def _cut(order: Sequence[int], probabilities: Sequence[float], in_order: bool = False) -> Splits:
    """Cut a sequence into shares; the rounding goes to training."""
    validation = round(len(order) * probabilities[1])
    test = round(len(order) * probabilities[2])
    if probabilities[0] == 0:  # nothing to round into: test takes the rest, where it has a share
        validation = validation if probabilities[2] > 0 else len(order)
        test = len(order) - validation
    elif validation + test >= len(order):  # a handful of rows: training comes first
        test = min(test, max(0, len(order) - 1))
        validation = min(validation, max(0, len(order) - 1 - test))
    training = len(order) - validation - test
    parts = (order[:training], order[training : training + validation], order[training + validation :])
    return {name: list(part) if in_order else sorted(part) for name, part in zip(NAMES, parts, strict=True)}


def _fixed(table: Table, chosen: Sequence[int], cells: Sequence[Any], how: FixedSplit) -> Splits:
    parts: Splits = {name: [] for name in NAMES}
    for index in chosen:
        key = str(int(cells[index]) if isinstance(cells[index], float) and cells[index].is_integer() else cells[index])
        if key.strip().lower() not in _FIXED:
            raise DataError(
                f"{table.place(index)}: column {how.column!r} holds {cells[index]!r}; expected 0, 1, 2 or train, validation, test"
            )
        parts[NAMES[_FIXED[key.strip().lower()]]].append(index)
    return parts


def _hashed(chosen: Sequence[int], cells: Sequence[Any], how: HashSplit) -> Splits:
    parts: Splits = {name: [] for name in NAMES}
    for index in chosen:
        digest = hashlib.blake2b(str(cells[index]).encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        which = 0 if share < how.probabilities[0] else 1 if share < how.probabilities[0] + how.probabilities[1] else 2
        parts[NAMES[which]].append(index)
    return parts


def _stratified(chosen: Sequence[int], cells: Sequence[Any], how: StratifySplit, seed: int) -> Splits:
    groups: dict[str, list[int]] = {}
    for index in chosen:
        groups.setdefault(str(cells[index]), []).append(index)
    parts: Splits = {name: [] for name in NAMES}
    for value, group in groups.items():
        random.Random(f"stratify {seed} {value}").shuffle(group)
        for name, part in _cut(group, how.probabilities).items():
            parts[name] += part
    return {name: sorted(part) for name, part in parts.items()}


def _time(table: Table, index: int, cell: Any) -> datetime:
    try:
        moment = cell if isinstance(cell, datetime) else datetime.fromisoformat(str(cell))
    except ValueError:
        raise DataError(
            f"{table.place(index)}: {cell!r} is not a time such as 2024-05-31 or 2024-05-31T12:00"
        ) from None
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
