"""The ids of a run's rows: from the cache where they are, else made and kept there."""

from __future__ import annotations

from dataclasses import dataclass

from fettle.data import store
from fettle.data.cache import rows_folder
from fettle.data.split import NAMES
from fettle.data.store import Collector, EncodedSplit
from fettle.errors import DataError, StorageError
from fettle.prepare import Rows


@dataclass(frozen=True)
class EncodedRows:
    """The splits of a run."""

    splits: dict[str, EncodedSplit]
    format: str
    """How rows are read: columns, alpaca or messages."""
    cached: bool
    """Whether they came from the cache."""


def encoded_rows(rows: Rows) -> EncodedRows:
    """The ids of all splits; nothing is parsed where they were kept before.

    Raises:
        DataError: the data is wrong, or there is no row to train on.
    """
    folder = rows_folder(rows.config.backend, rows.fingerprint())
    kept = store.load(folder)
    if kept is not None:
        splits, about = kept
        return EncodedRows(splits, about["format"], True)
    made = EncodedRows({name: encode_split(rows, name) for name in NAMES}, rows.shape.format, False)
    if not len(made.splits["training"]):
        raise DataError("no row is left to train on; look at `fettle preview`")
    try:
        store.save(folder, made.splits, {"format": made.format})
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
