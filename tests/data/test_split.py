"""Splits: every row in one split, the same each time, in the shares asked for."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.data.config import (
    DatetimeSplit,
    FixedSplit,
    HashSplit,
    Preprocessing,
    RandomSplit,
    StratifySplit,
)
from fettle.data.split import NAMES, Splits, sample, split
from fettle.data.table import Origin, Table
from fettle.errors import DataError

SHARES = (
    st.lists(st.integers(0, 10), min_size=3, max_size=3)
    .filter(sum)
    .map(lambda parts: [part / sum(parts) for part in parts])
)
CELLS = st.lists(st.sampled_from("abcd"), max_size=60)


def divided(cells: list[Any], how: Any, seed: int = 42, **keys: Any) -> Splits:
    table = Table({"c": cells}, [Origin(0, "x.csv", list(range(2, len(cells) + 2)))])
    return split(table, Preprocessing(split=how, **keys), seed)


def complete(parts: Splits, count: int) -> bool:
    return list(parts) == list(NAMES) and sorted(itertools.chain(*parts.values())) == list(range(count))


@given(CELLS, SHARES, st.integers(0, 3))
def test_every_row_is_in_one_split(cells: list[str], shares: list[float], seed: int) -> None:
    times = ["2024-01-0" + str("abcd".index(cell) + 1) for cell in cells]
    for how, column in (
        (RandomSplit(type="random", probabilities=shares), cells),
        (HashSplit(type="hash", column="c", probabilities=shares), cells),
        (StratifySplit(type="stratify", column="c", probabilities=shares), cells),
        (DatetimeSplit(type="datetime", column="c", probabilities=shares), times),
    ):
        parts = divided(column, how, seed)
        assert complete(parts, len(cells))
        assert parts == divided(column, how, seed)
        for name, share in zip(NAMES, shares, strict=True):
            assert share > 0 or not parts[name]


@given(st.integers(1, 300), SHARES)
def test_shares_are_kept(count: int, shares: list[float]) -> None:
    parts = divided(["x"] * count, RandomSplit(type="random", probabilities=shares))
    for name, share in zip(NAMES, shares, strict=True):
        assert abs(len(parts[name]) - share * count) <= 1.01
    assert not shares[0] or parts["training"]


def test_another_seed_is_another_split() -> None:
    how = RandomSplit(type="random", probabilities=[0.5, 0.25, 0.25])
    assert divided(["x"] * 100, how, 1) != divided(["x"] * 100, how, 2)


def test_a_handful_of_rows_trains_first() -> None:
    how = RandomSplit(type="random", probabilities=[0.1, 0.45, 0.45])
    assert [len(part) for part in divided(["x"], how).values()] == [1, 0, 0]
    assert [len(part) for part in divided(["x"] * 2, how).values()] == [1, 0, 1]


def test_fixed() -> None:
    cells = ["0", 1, 2.0, "train", " Validation", "TEST", "dev", "training"]
    parts = divided(cells, FixedSplit(type="fixed", column="c"))
    assert parts == {"training": [0, 3, 7], "validation": [1, 4, 6], "test": [2, 5]}


@pytest.mark.parametrize("bad", ["3", None, "", "tset", 1.5, True, float("nan")])
def test_fixed_names_the_row_of_a_bad_value(bad: object) -> None:
    with pytest.raises(DataError, match=r"x\.csv:3: column 'c' holds .*; expected 0, 1, 2 or train, validation, test"):
        divided(["0", bad], FixedSplit(type="fixed", column="c"))


def test_missing_column() -> None:
    with pytest.raises(DataError, match=r"there is no column 'd' \(preprocessing\.split\.column\)"):
        divided(["a"], HashSplit(type="hash", column="d"))


def test_stratify_keeps_the_shares_of_each_value() -> None:
    cells = ["a"] * 100 + ["b"] * 20 + [None] * 10
    parts = divided(cells, StratifySplit(type="stratify", column="c", probabilities=[0.7, 0.1, 0.2]))
    counts = {name: Counter(cells[index] for index in part) for name, part in parts.items()}
    assert counts == {
        "training": {"a": 70, "b": 14, None: 7},
        "validation": {"a": 10, "b": 2, None: 1},
        "test": {"a": 20, "b": 4, None: 2},
    }


@given(st.lists(st.text(max_size=5), unique=True, min_size=1), st.randoms())
def test_hash_stays_when_rows_are_added_or_reordered(cells: list[str], chance: Any) -> None:
    how = HashSplit(type="hash", column="c", probabilities=[0.5, 0.25, 0.25])

    def where(values: list[str]) -> dict[str, str]:
        return {values[index]: name for name, part in divided(values, how).items() for index in part}

    before = where(cells)
    more = [*cells, *(f"new {n}" for n in range(5))]
    chance.shuffle(more)
    after = where(more)
    assert {cell: after[cell] for cell in cells} == before


def test_hash_shares() -> None:
    parts = divided([str(n) for n in range(10_000)], HashSplit(type="hash", column="c", probabilities=[0.7, 0.1, 0.2]))
    assert [len(part) / 10_000 for part in parts.values()] == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


def test_datetime_puts_the_earliest_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        "2024-03-01", "2023-12-31T23:59:59Z", datetime(2024, 1, 1), "2024-01-01T00:30:00+02:00", date(2025, 1, 1), "20240201",
    ]  # fmt: skip
    how = DatetimeSplit(type="datetime", column="c", probabilities=[0.5, 1 / 6, 1 / 3])
    assert divided(cells, how) == {"training": [3, 1, 2], "validation": [5], "test": [0, 4]}


@pytest.mark.parametrize("bad", ["yesterday", None, "", 3])
def test_datetime_names_the_row_of_a_bad_value(bad: object) -> None:
    with pytest.raises(DataError, match=r"x\.csv:3: .* is not a time such as"):
        divided(["2024-01-01", bad], DatetimeSplit(type="datetime", column="c"))


def test_sample_size_and_ratio() -> None:
    assert sample(10, Preprocessing(), 1) == list(range(10))
    assert len(sample(10, Preprocessing(sample_size=4), 1)) == 4
    assert len(sample(10, Preprocessing(sample_ratio=0.35), 1)) == 4
    assert len(sample(10, Preprocessing(sample_ratio=0.001), 1)) == 1
    assert sample(0, Preprocessing(sample_ratio=0.5), 1) == []
    chosen = sample(1000, Preprocessing(sample_size=100), 1)
    assert chosen == sorted(set(chosen)) == sample(1000, Preprocessing(sample_size=100), 1)
    assert chosen != sample(1000, Preprocessing(sample_size=100), 2)
    with pytest.raises(DataError, match=r"sample_size: 11 is more than the 10 rows there are"):
        sample(10, Preprocessing(sample_size=11), 1)


def test_only_sampled_rows_are_divided() -> None:
    parts = divided(["x"] * 100, RandomSplit(type="random"), sample_size=10)
    assert sorted(itertools.chain(*parts.values())) == sample(100, Preprocessing(sample_size=10), 42)
