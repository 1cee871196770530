"""Which rows go into which optimizer step, and which share a forward pass: no padding anywhere.

A step is `effective_batch_size` rows of the epoch's order. Its rows are packed, longest first, each into the fullest pack
it still fits (best-fit decreasing), so that a step takes as few forward passes as memory allows. What a step learns does not
depend on the packing: the loss is the mean over all its labelled tokens.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def order(rows: int, epoch: int, seed: int, shuffle: bool) -> NDArray[np.int64]:
    """The order in which an epoch reads the rows: a function of seed and epoch alone, so that a resumed run goes on in it."""
    if not shuffle:
        return np.arange(rows)
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


def best_fit(lengths: Sequence[int], capacity: int, most: int | None = None) -> list[list[int]]:
    """Positions of `lengths` in packs of at most `capacity` tokens and `most` rows, by best-fit decreasing.

    A row longer than the capacity gets a pack of its own. Source: Johnson (1973), bin packing.
    """
    packs: list[list[int]] = []
    open_packs: list[tuple[int, int]] = []  # (room left, pack), sorted
    for position in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        length = lengths[position]
        found = bisect.bisect_left(open_packs, (length, -1))
        if found == len(open_packs):
            packs.append([position])
            room, pack = capacity - length, len(packs) - 1
        else:
            room, pack = open_packs.pop(found)
            packs[pack].append(position)
            room -= length
        if room > 0 and (most is None or len(packs[pack]) < most):
            bisect.insort(open_packs, (room, pack))
    return packs
