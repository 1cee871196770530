"""Blocks of documents: every token with loss once, documents apart or not, the same from disk and from memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.data.blocks import Blocks, in_memory, load, write_about, write_split
from fettle.data.encode import Encoded

END, START = 1, 2
documents = st.lists(st.lists(st.integers(10, 99), min_size=1, max_size=30), min_size=1, max_size=12)


def encoded(words: Sequence[Sequence[int]], shared: bool) -> list[Encoded]:
    start = END if shared else START
    return [Encoded([start, *ids, END], [False] + [True] * (len(ids) + 1)) for ids in words]


def chunks(words: Sequence[Sequence[int]], shared: bool) -> Iterator[tuple[Sequence[int], Sequence[Encoded]]]:
    made = encoded(words, shared)
    for at in range(0, len(made), 3):
        yield list(range(at, min(at + 3, len(made)))), made[at : at + 3]


def labels(blocks: Blocks) -> list[list[tuple[list[int], int]]]:
    """Per block, (what stands before, label) of every token with loss."""
    found = []
    for row in range(len(blocks)):
        pairs = []
        for ids, trained in blocks.examples(row):
            assert not trained[0]
            assert trained[1:].all()
            pairs += [(ids[:at].tolist(), int(ids[at])) for at in range(1, len(ids))]
        found.append(pairs)
    return found


@given(documents, st.integers(2, 20), st.booleans())
def test_every_token_of_every_document_carries_loss_once(words: list[list[int]], length: int, shared: bool) -> None:
    blocks = in_memory(chunks(words, shared), length, across=False, shared=shared)
    found = [label for pairs in labels(blocks) for _, label in pairs]
    assert found == [token for ids in words for token in [*ids, END]]


@given(documents, st.integers(2, 20), st.booleans())
def test_apart_no_token_sees_another_document(words: list[list[int]], length: int, shared: bool) -> None:
    own = [{(at, token) for token in ids} for at, ids in enumerate(words)]
    told = [[token + 1000 * at for token in ids] for at, ids in enumerate(words)]
    blocks = in_memory(chunks(told, shared), length, across=False, shared=shared)
    assert own
    for before, label in itertools.chain.from_iterable(labels(blocks)):
        seen = {token // 1000 for token in before if token >= 10}
        assert len(seen | ({label // 1000} if label >= 10 else set())) <= 1


@given(documents, st.integers(2, 20))
def test_across_a_block_is_read_whole(words: list[list[int]], length: int) -> None:
    blocks = in_memory(chunks(words, True), length, across=True, shared=True)
    stream = [END, *(token for ids in words for token in [*ids, END])]
    assert blocks.ids_S.tolist() == stream
    assert [label for pairs in labels(blocks) for _, label in pairs] == stream[1:]
    assert [len(blocks.examples(row)) for row in range(len(blocks))] == [1] * len(blocks)
    assert blocks.lengths_R.max() <= length
    for row in range(len(blocks)):
        assert len(blocks.examples(row)[0][0]) == blocks.lengths_R[row]


def test_a_document_that_fits_is_seen_from_its_start() -> None:
    blocks = in_memory(chunks([[10, 11], [20], [30, 31, 32]], True), 64, across=False, shared=True)
    [row] = range(len(blocks))
    assert [ids.tolist() for ids, _ in blocks.examples(row)] == [[1, 10, 11, 1], [1, 20, 1], [1, 30, 31, 32, 1]]


def test_a_block_names_the_document_it_begins_with() -> None:
    blocks = in_memory(chunks([[10] * 5, [20] * 5, [30] * 5], True), 4, across=True, shared=True)
    origins = [blocks.origin(row) for row in range(len(blocks))]
    assert origins[0] == 0
    assert origins[-1] == 2
    assert origins == sorted(origins)


@pytest.mark.parametrize("shared", [True, False])
def test_from_disk_as_from_memory(tmp_path: Path, shared: bool) -> None:
    words = [[10, 11, 12], [20], [30, 31]]
    folder = tmp_path / "kept"
    folder.mkdir()
    write_split(folder, "training", chunks(words, shared), shared)
    write_split(folder, "test", iter(()), shared)
    assert load(folder, across=False) is None, "without its last file a folder is not whole"
    write_about(folder, {"training": {"empty": 2}, "test": {}}, 5, shared)
    kept = load(folder, across=False)
    assert kept is not None
    expected = in_memory(chunks(words, shared), 5, across=False, shared=shared)
    assert labels(kept["training"]) == labels(expected)
    assert np.array_equal(kept["training"].rows_D, expected.rows_D)
    assert kept["training"].counts == {"empty": 2}
    assert len(kept["test"]) == 0
