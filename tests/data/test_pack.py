"""Packing: every row once, no pack too full, and none that a simpler way would have saved."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fettle.data.pack import best_fit, order


def first_fit(lengths: list[int], capacity: int) -> int:
    rooms: list[int] = []
    for length in lengths:
        at = next((at for at, room in enumerate(rooms) if room >= length), None)
        if at is None:
            rooms.append(capacity - length)
        else:
            rooms[at] -= length
    return len(rooms)


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 50), st.none() | st.integers(1, 6))
def test_packs(lengths: list[int], capacity: int, most: int | None) -> None:
    packs = best_fit(lengths, capacity, most)
    assert sorted(at for pack in packs for at in pack) == list(range(len(lengths)))
    for pack in packs:
        assert sum(lengths[at] for at in pack) <= capacity or len(pack) == 1
        assert most is None or len(pack) <= most
    assert best_fit(lengths, capacity, most) == packs


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_no_two_packs_could_be_one(lengths: list[int]) -> None:
    loads = sorted(sum(lengths[at] for at in pack) for pack in best_fit(lengths, 50))
    assert len(loads) < 2 or loads[0] + loads[1] > 50
    assert len(loads) <= 11 / 9 * -(-sum(lengths) // 50) + sum(length > 25 for length in lengths) + 1


def test_no_more_packs_than_first_fit() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        lengths = [min(512, int(chance.lognormvariate(4.5, 0.8)) + 1) for _ in range(chance.choice([10, 100, 400]))]
        assert len(best_fit(lengths, 512)) <= first_fit(lengths, 512)


def test_fills_the_fullest_pack_it_fits() -> None:
    assert best_fit([5, 7, 3, 2], 10) == [[1, 2], [0, 3]]
    assert best_fit([12, 1], 10) == [[0], [1]]
    assert best_fit([], 10) == []


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = order(1000, 0, 42, True)
    assert sorted(first) == list(range(1000))
    assert np.array_equal(first, order(1000, 0, 42, True))
    assert not np.array_equal(first, order(1000, 1, 42, True))
    assert not np.array_equal(first, order(1000, 0, 43, True))
    assert list(order(5, 3, 42, False)) == [0, 1, 2, 3, 4]
