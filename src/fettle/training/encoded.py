"""The ids of a run's rows: from the cache where they are, else made and kept there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.data import blocks, store
from fettle.data.cache import rows_folder
from fettle.data.encode import Encoded
from fettle.data.split import NAMES
from fettle.data.store import Collector, EncodedSplit, Split
from fettle.errors import DataError, StorageError
from fettle.files import whole_folder
from fettle.prepare import Rows
from fettle.training.config import PretrainTrainer


@dataclass(frozen=True)
class EncodedRows:
    """The splits of a run."""

    splits: Mapping[str, Split]
    format: str
    """How rows are read: columns, alpaca, messages or text."""
    cached: bool
    """Whether they came from the cache."""


def encoded_rows(rows: Rows) -> EncodedRows:
    """The ids of all splits; nothing is parsed where they were kept before.

    Raises:
        DataError: the data is wrong, or there is no row to train on.
    """
    folder = rows_folder(rows.config.backend, rows.fingerprint())
    if isinstance(rows.config.trainer, PretrainTrainer):
        return _documents(rows, folder, rows.config.trainer.attend_across_documents)
    kept = store.load(folder)
    if kept is not None:
        splits, about = kept
        return EncodedRows(splits, about["format"], True)
    encoded = {name: encode_split(rows, name) for name in NAMES}
    made = EncodedRows(encoded, rows.shape.format, False)
    if not len(encoded["training"]):
        raise DataError("no row is left to train on; look at `fettle preview`")
    try:
        store.save(folder, encoded, {"format": made.format})
    except StorageError:
        return made  # a cache that cannot be written costs the next run some seconds, not this one its life
    return made


def encode_split(rows: Rows, name: str) -> EncodedSplit:
    """Encode one split."""
    collector = Collector()
    totals: dict[str, int] = {}
    for indices, _, encoded, counts in rows.encoded(name):
        collector.add(indices, encoded)
        for key, value in counts.items():
            totals[key] = totals.get(key, 0) + value
    return collector.finish(totals)


def _documents(rows: Rows, folder: Path, across: bool) -> EncodedRows:
    """The documents of all splits as streams on disk, of which training reads a block at a time."""
    kept = blocks.load(folder, across)
    if kept is not None:
        return EncodedRows(kept, "text", True)
    tokenizer = rows.tokenizer
    with whole_folder(folder) as part:
        counts: dict[str, dict[str, int]] = {}
        for name in NAMES:
            counts[name] = {}
            chunks = _chunks(rows, name, counts[name])
            blocks.write_split(part, name, chunks, tokenizer.shares_separator)
        blocks.write_about(part, counts, rows.block_length, tokenizer.shares_separator)
    made = blocks.load(folder, across)
    assert made is not None
    if not len(made["training"]):
        raise DataError("no document is left to train on; look at `fettle preview`")
    return EncodedRows(made, "text", False)


def _chunks(rows: Rows, name: str, counts: dict[str, int]) -> Iterator[tuple[Sequence[int], Sequence[Encoded]]]:
    for indices, _, encoded, lost in rows.encoded(name):
        for key, value in lost.items():
            counts[key] = counts.get(key, 0) + value
        yield indices, encoded
