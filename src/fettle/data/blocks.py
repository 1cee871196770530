"""Documents end to end as one stream of tokens, read in blocks of equal length, every token but the very first with loss.

Letters: S = tokens of the stream, D = documents.
A block begins with the last token of the one before, so that its second token has something to be predicted from.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fettle.data.cache import ABOUT, is_kept
from fettle.data.encode import Encoded
from fettle.data.store import Example


@dataclass(frozen=True, repr=False)
class Blocks:
    """A stream of documents; block r is `ids_S[r * (length - 1):][:length]`."""

    ids_S: NDArray[np.int32]
    starts_D: NDArray[np.int64]
    """Token from which each document is predicted: what stands before it."""
    rows_D: NDArray[np.int64]
    """Index of each document in the table."""
    length: int
    """Tokens of a block."""
    across: bool = False
    """A token sees the documents that stand before its own in a block."""
    shared: bool = True
    """What a document begins with is what the one before ended with."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many documents were empty."""

    def __len__(self) -> int:
        return -(-(len(self.ids_S) - 1) // (self.length - 1)) if len(self.ids_S) > 1 else 0

    def __repr__(self) -> str:
        return f"Blocks({len(self):,} blocks, {len(self.starts_D):,} documents, {len(self.ids_S):,} tokens)"

    @property
    def lengths_R(self) -> NDArray[np.int64]:
        """Tokens of each block; only the last one may be shorter."""
        firsts = np.arange(len(self)) * (self.length - 1)
        return np.minimum(firsts + self.length, len(self.ids_S)) - firsts

    def examples(self, row: int) -> list[Example]:
        """What of a block is read together: all of it, or document by document."""
        first = row * (self.length - 1)
        end = min(first + self.length, len(self.ids_S))
        if self.across:
            return [_example(self.ids_S[first:end])]
        found = slice(np.searchsorted(self.starts_D, first, "right"), np.searchsorted(self.starts_D, end))
        cuts = [int(start) for start in self.starts_D[found]]
        ends = [cut + 1 if self.shared else cut for cut in cuts]
        parts = zip([first, *cuts], [*ends, end], strict=True)
        return [_example(self.ids_S[start:stop]) for start, stop in parts if stop - start > 1]

    def origin(self, row: int) -> int:
        """Index in the table of the document with which a block begins."""
        at = int(np.searchsorted(self.starts_D, row * (self.length - 1), "right")) - 1
        return int(self.rows_D[max(at, 0)])


def _example(ids: NDArray[np.int32]) -> Example:
    trained = np.ones(len(ids), np.bool_)
    trained[0] = False
    return ids, trained


class StreamWriter:
    """Appends encoded documents to a stream, on disk or in memory."""

    def __init__(self, sink: BinaryIO, shared: bool) -> None:
        # Where a document begins with what the one before ended with, that stands between them once.
        self._sink, self._shared = sink, shared
        self._starts, self._rows = array("q"), array("q")
        self._tokens = 0

    def add(self, rows: Sequence[int], encoded: Sequence[Encoded]) -> None:
        """Append documents; the table's index of each beside it."""
        for row, one in zip(rows, encoded, strict=True):
            ids = np.asarray(one.ids, np.int32)
            given = one.trained.index(True) if True in one.trained else 0
            if self._tokens and self._shared:
                ids = ids[given:]
                self._starts.append(self._tokens - 1)
            else:
                self._starts.append(self._tokens + max(given - 1, 0))
            self._rows.append(row)
            self._sink.write(ids.tobytes())
            self._tokens += len(ids)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(starts_D, rows_D)"""
        return np.frombuffer(self._starts, np.int64).copy(), np.frombuffer(self._rows, np.int64).copy()


def write_split(
    folder: Path, name: str, chunks: Iterator[tuple[Sequence[int], Sequence[Encoded]]], shared: bool
) -> None:
    """Write a split's stream into a folder as it comes."""
    with (folder / f"{name}.ids_S.bin").open("wb") as sink:
        writer = StreamWriter(sink, shared)
        for rows, encoded in chunks:
            writer.add(rows, encoded)
    starts, rows_D = writer.arrays()
    np.save(folder / f"{name}.starts_D.npy", starts)
    np.save(folder / f"{name}.rows_D.npy", rows_D)


def write_about(folder: Path, counts: dict[str, dict[str, int]], length: int, shared: bool) -> None:
    """Close a folder of streams."""
    about = {"splits": list(counts), "counts": counts, "length": length, "shared": shared, "format": "text"}
    (folder / ABOUT).write_text(json.dumps(about, indent=2))


def load(folder: Path, across: bool) -> dict[str, Blocks] | None:
    """What was written, memory-mapped; None where there is nothing (whole)."""
    if not is_kept(folder):
        return None
    about = json.loads((folder / ABOUT).read_text())
    found = {}
    for name in about["splits"]:
        path = folder / f"{name}.ids_S.bin"
        ids = np.memmap(path, np.int32, "r") if path.stat().st_size else np.zeros(0, np.int32)
        starts, rows = (np.load(folder / f"{name}.{key}.npy", mmap_mode="r") for key in ("starts_D", "rows_D"))
        found[name] = Blocks(ids, starts, rows, about["length"], across, about["shared"], about["counts"][name])
    return found


def in_memory(
    chunks: Iterator[tuple[Sequence[int], Sequence[Encoded]]], length: int, across: bool, shared: bool
) -> Blocks:
    """Blocks of some documents that are to be scored only."""
    sink = io.BytesIO()
    writer = StreamWriter(sink, shared)
    for rows, encoded in chunks:
        writer.add(rows, encoded)
    return Blocks(np.frombuffer(sink.getvalue(), np.int32), *writer.arrays(), length, across, shared)
