"""Encoded splits on disk: what was saved comes back, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fettle.data import store
from fettle.data.cache import rows_folder
from fettle.data.encode import Encoded
from fettle.data.store import Collector
from fettle.hardware.config import LocalBackend


def collected(*chunks: list[Encoded]) -> store.EncodedSplit:
    collector = Collector()
    first = 0
    for chunk in chunks:
        collector.add(list(range(first, first + len(chunk))), chunk)
        first += len(chunk)
    return collector.finish({"truncated": 2})


ONE = Encoded([1, 2, 70000], [False, True, True])
TWO = Encoded([5], [True])


def test_rows_come_back(tmp_path: Path) -> None:
    store.save(
        tmp_path / "a" / "b", {"training": collected([ONE], [TWO, ONE]), "test": collected()}, {"format": "columns"}
    )
    found = store.load(tmp_path / "a" / "b")
    assert found is not None
    splits, about = found
    assert about["format"] == "columns"
    training = splits["training"]
    assert len(training) == 3
    assert training.counts == {"truncated": 2}
    assert list(training.lengths_R) == [3, 1, 3]
    assert list(training.rows_R) == [0, 1, 2]
    ids, trained = training.example(2)
    assert ids.tolist() == ONE.ids
    assert trained.tolist() == ONE.trained
    assert (ids.dtype, trained.dtype) == (np.int32, np.bool_)
    assert len(splits["test"]) == 0


def test_nothing_there(tmp_path: Path) -> None:
    assert store.load(tmp_path / "none") is None


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        store.save(tmp_path / "x", {"training": collected([ONE])}, {})
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_stays(tmp_path: Path) -> None:
    for rows in ([ONE, TWO], [TWO]):  # the second stands for a process that was as fast under the same fingerprint
        store.save(tmp_path / "x", {"training": collected(rows)}, {})
    assert len(store.load(tmp_path / "x")[0]["training"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_CACHE", "/from/variable")
    assert rows_folder(LocalBackend(type="local"), "f") == Path("/from/variable/rows/f")
    assert rows_folder(LocalBackend(type="local", cache_dir="/own"), "f") == Path("/own/rows/f")
    monkeypatch.delenv("FETTLE_CACHE")
    assert rows_folder(LocalBackend(type="local"), "f") == Path.home() / ".cache/fettle/rows/f"
