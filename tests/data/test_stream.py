"""Documents read from disk piece by piece: the same rows as in memory, and faults that name their line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from fettle.data import read
from fettle.data.stream import stream
from fettle.errors import DataError

TEXTS = ["one\ntwo", "Straße 🙂", "  indented", "three\u2028four"]


def jsonl(path: Path, texts: list[str], gap: str = "") -> Path:
    path.write_text("".join(json.dumps({"text": text, "n": at}) + "\n" + gap for at, text in enumerate(texts)))
    return path


def test_json_lines_as_in_memory(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", TEXTS, gap="\n")
    table = stream([path], "auto", "text", None)
    assert table is not None
    whole = read.read(path)[""]
    assert [table.row(at) for at in range(len(table))] == [whole.row(at) for at in range(len(whole))]
    assert list(table.columns["text"]) == TEXTS
    assert table.columns["text"][1:3] == TEXTS[1:3]
    assert [table.place(at) for at in range(4)] == [whole.place(at) for at in range(4)]
    with pytest.raises(IndexError):
        table.columns["text"][4]


def test_parquet_in_groups(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": TEXTS * 5}), path, row_group_size=3)
    table = stream([path], "auto", "text", None)
    assert table is not None
    assert list(table.columns["text"]) == TEXTS * 5
    assert table.columns["text"][17] == (TEXTS * 5)[17]


def test_several_files_end_to_end(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "a.jsonl", TEXTS[:3])
    second = tmp_path / "b.parquet"
    parquet.write_table(pyarrow.table({"text": TEXTS}), second)
    third = tmp_path / "c.txt"
    third.write_text("last")
    table = stream([first, second, third], "auto", "text", None)
    assert table is not None
    assert list(table.columns["text"]) == [*TEXTS[:3], *TEXTS, "last"]
    assert [table.place(at) for at in (2, 3, 7)] == [f"{first}:3", f"{second}, row 1", f"{third}:1"]


@pytest.mark.parametrize(
    ("separator", "expected", "lines"),
    [
        (None, ["a\n\nb\nc\n\n\nd"], [1]),
        ("\n\n", ["a", "b\nc", "d"], [1, 3, 6]),
        ("\n", ["a", "b", "c", "d"], [1, 3, 4, 7]),
        ("b", ["a", "c\n\n\nd"], [1, 3]),
    ],
)
def test_plain_text_between_separators(
    tmp_path: Path, separator: str | None, expected: list[str], lines: list[int]
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"a\n\nb\nc\n\n\nd\n")
    table = stream([path], "auto", "body", separator)
    assert table is not None
    assert list(table.columns["body"]) == expected
    assert [table.place(at) for at in range(len(table))] == [f"{path}:{line}" for line in lines]


def test_windows_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffgrüß\r\ndich\r\n".encode())
    table = stream([path], "auto", "text", None)
    assert table is not None
    assert list(table.columns["text"]) == ["grüß\ndich"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\n{"text": \n', r"rows.jsonl:2: not valid JSON"),
        (b'{"text": "a"}\n\n[1]\n', r"rows.jsonl:3: expected an object"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', r"rows.jsonl:2: not UTF-8 text"),
        (b"\n\n", r"rows.jsonl: the file is empty"),
        (b"", r"rows.jsonl: the file is empty"),
    ],
)
def test_faults_name_their_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        table = stream([path], "auto", "text", None)
        assert table is not None
        list(table.columns["text"])


def test_plain_text_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"fine\n\nfine\n\xff\xfe")
    table = stream([path], "auto", "text", "\n\n")
    assert table is not None
    with pytest.raises(DataError, match=r"text.txt:4: not UTF-8"):
        list(table.columns["text"])


def test_what_cannot_be_read_piece_by_piece(tmp_path: Path) -> None:
    assert stream([tmp_path / "rows.csv"], "auto", "text", None) is None
    assert stream([tmp_path / "rows.jsonl.gz"], "auto", "text", None) is None
    broken = tmp_path / "rows.parquet"
    broken.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a parquet file"):
        stream([broken], "auto", "text", None)
