"""Encoded rows in flat arrays, kept on disk by a fingerprint of everything that shapes them.

Letters: S = tokens of the whole split, R = its rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fettle.data.cache import ABOUT, is_kept
from fettle.data.encode import Encoded
from fettle.files import whole_folder

Example = tuple[NDArray[np.int32], NDArray[np.bool_]]
"""Ids and, for each, whether it carries loss."""


class Split(Protocol):
    """Rows to train on or to score, however they are kept."""

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were truncated, dropped, empty."""

    @property
    def lengths_R(self) -> NDArray[np.int64]:
        """Tokens of each row."""

    def __len__(self) -> int: ...

    def examples(self, row: int) -> list[Example]:
        """The parts of a row that do not see one another."""

    def origin(self, row: int) -> int:
        """Index in the table of what a row begins with."""


@dataclass(frozen=True, repr=False)
class EncodedSplit:
    """All rows of a split end to end; row r is `ids_S[starts[r]:starts[r + 1]]`."""

    ids_S: NDArray[np.int32]
    trained_S: NDArray[np.bool_]
    starts: NDArray[np.int64]
    """First token of each row, and S at the end (R + 1 values)."""
    rows_R: NDArray[np.int64]
    """Index of each row in the table."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many rows were truncated, dropped, without label."""

    def __len__(self) -> int:
        return len(self.rows_R)

    def __repr__(self) -> str:
        return f"EncodedSplit({len(self):,} rows, {len(self.ids_S):,} tokens)"

    @property
    def lengths_R(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def examples(self, row: int) -> list[Example]:
        """What of a row is read together: all of it."""
        return [self.example(row)]

    def origin(self, row: int) -> int:
        """Index of a row in the table."""
        return int(self.rows_R[row])

    def example(self, row: int) -> Example:
        """Ids of a row and, for each, whether it carries loss."""
        part = slice(self.starts[row], self.starts[row + 1])
        return self.ids_S[part], self.trained_S[part]


class Collector:
    """Gathers encoded rows into an EncodedSplit, a chunk at a time."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.int32]] = []
        self._trained: list[NDArray[np.bool_]] = []
        self._lengths: list[int] = []
        self._rows: list[int] = []

    def add(self, rows: Sequence[int], encoded: Sequence[Encoded]) -> None:
        """Append rows; the table's index of each beside it."""
        lengths = [len(one.ids) for one in encoded]
        total = sum(lengths)
        self._ids.append(np.fromiter((i for one in encoded for i in one.ids), np.int32, total))
        self._trained.append(np.fromiter((t for one in encoded for t in one.trained), np.bool_, total))
        self._lengths += lengths
        self._rows += rows

    def finish(self, counts: dict[str, int]) -> EncodedSplit:
        starts = np.zeros(len(self._lengths) + 1, np.int64)
        np.cumsum(self._lengths, out=starts[1:])
        ids = np.concatenate(self._ids) if self._ids else np.zeros(0, np.int32)
        trained = np.concatenate(self._trained) if self._trained else np.zeros(0, np.bool_)
        return EncodedSplit(ids, trained, starts, np.asarray(self._rows, np.int64), counts)


def save(folder: Path, splits: dict[str, EncodedSplit], about: dict[str, Any]) -> None:
    """Keep encoded splits under a folder; whole or not at all."""
    if is_kept(folder):  # another process was as fast
        return
    with whole_folder(folder) as part:
        for name, split in splits.items():
            for key in ("ids_S", "trained_S", "starts", "rows_R"):
                np.save(part / f"{name}.{key}.npy", getattr(split, key))
        counts = {name: split.counts for name, split in splits.items()}
        (part / ABOUT).write_text(json.dumps({"splits": list(splits), "counts": counts, **about}, indent=2))


def load(folder: Path) -> tuple[dict[str, EncodedSplit], dict[str, Any]] | None:
    """What `save` kept, memory-mapped; None where there is nothing (whole)."""
    if not is_kept(folder):
        return None
    about = json.loads((folder / ABOUT).read_text())
    splits = {}
    for name in about["splits"]:
        arrays = {
            key: np.load(folder / f"{name}.{key}.npy", mmap_mode="r")
            for key in ("ids_S", "trained_S", "starts", "rows_R")
        }
        splits[name] = EncodedSplit(**arrays, counts=about["counts"][name])
    return splits, about
