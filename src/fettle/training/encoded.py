"""The ids of a run's rows: from the cache where they are, else made and kept there."""

from __future__ import annotations

from pathlib import Path

from fettle.data import store
from fettle.data.split import NAMES
from fettle.data.store import Collector, EncodedSplit
from fettle.errors import DataError, StorageError
from fettle.prepare import Rows


def encoded_splits(rows: Rows, cache: Path) -> tuple[dict[str, EncodedSplit], bool]:
    """(splits, whether they came from the cache).

    Raises:
        DataError: the data is wrong, or there is no row to train on.
    """
    folder = cache / "rows" / rows.fingerprint()
    kept = store.load(folder)
    if kept is not None:
        return kept[0], True
    splits = {name: encode_split(rows, name) for name in NAMES}
    if not len(splits["training"]):
        raise DataError("no row is left to train on; look at `fettle preview`")
    try:
        store.save(folder, splits, {"format": rows.shape.format})
    except StorageError:
        return splits, False  # a cache that cannot be written costs the next run some seconds, not this one its life
    return splits, False


def encode_split(rows: Rows, name: str) -> EncodedSplit:
    """Encode one split."""
    collector = Collector()
    totals: dict[str, int] = {}
    for indices, _, encoded, counts in rows.encoded(name):
        collector.add(indices, encoded)
        for key, value in counts.items():
            totals[key] = totals.get(key, 0) + value
    return collector.finish(totals)
