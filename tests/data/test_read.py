"""Reading: every kind of source comes in whole, every fault has its file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from fettle.data.read import is_hub_name, read, source_fingerprint
from fettle.data.table import Table
from fettle.errors import DataError, MissingFileError

Write = Callable[[str, str | bytes], Path]
ROWS = [{"q": "a", "a": "1"}, {"q": "b", "a": "2"}]
COLUMNS = {"q": ["a", "b"], "a": ["1", "2"]}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def table(source: Any, data_format: str = "auto") -> Table:
    return read(source, data_format=data_format)[""]


def refusal(source: Any, data_format: str = "auto") -> str:
    with pytest.raises(DataError) as caught:
        read(source, data_format=data_format)
    return str(caught.value)


def test_csv_keeps_every_text(write: Write) -> None:
    path = write(
        "x.csv", '\ufeffid,text,"a, b"\r\n007,"He said ""hi"", 🙂",NA\r\n 1 ,"two\r\nlines",\r\n\r\nnull,x,"  "\r\n'
    )
    found = table(path)
    assert found.columns == {
        "id": ["007", " 1 ", "null"],
        "text": ['He said "hi", 🙂', "two\r\nlines", "x"],
        "a, b": ["NA", "", "  "],
    }
    assert [found.place(row) for row in range(3)] == [f"{path}:2", f"{path}:3", f"{path}:6"]


def test_csv_line_numbers_after_embedded_newlines(write: Write) -> None:
    path = write("x.csv", 'q,a\n"1\n2\n3",x\n\n"4\n5",y\nz,"6\n"\n')
    found = table(path)
    assert [found.place(row) for row in range(3)] == [f"{path}:2", f"{path}:6", f"{path}:8"]


def test_csv_with_semicolons(write: Write) -> None:
    assert table(write("x.csv", 'q;a\n"x;y";1,5\n')).columns == {"q": ["x;y"], "a": ["1,5"]}


def test_csv_blank_lines_before_the_header(write: Write) -> None:
    assert table(write("x.csv", "\n\nq;a\n1;2\n")).columns == {"q": ["1"], "a": ["2"]}


def test_tsv(write: Write) -> None:
    assert table(write("x.tsv", "q\ta\nx, y\t1\n")).columns == {"q": ["x, y"], "a": ["1"]}


def test_format_goes_before_the_ending(write: Write) -> None:
    assert table(write("x.txt", "q\ta\nx\t1\n"), "tsv").columns == {"q": ["x"], "a": ["1"]}
    assert "set dataset.data_format where it is one of arrow, csv, json, jsonl, parquet, tsv" in refusal(
        write("y.txt", "q\n1\n")
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("q,a\nx,1\ny\n", 3, "1 cells where the header has 2"),
        ("q,a\nx,1,2\n", 2, "3 cells where the header has 2"),
        ('q,a\n"x\ny",1\nz,"open\nmore\n', 4, "a quote opens in this row and is never closed"),
        ('q,a\n"x"y,1\n', 2, "this row is no CSV"),
        ("q,a,q\n1,2,3\n", 1, "the column 'q' stands twice in the header"),
        ("\nq,q\n1,2\n", 2, "the column 'q' stands twice in the header"),
        ("q,a\nx,1\ny\0,2\n", 3, "holds a NUL character"),
        ('"q,a\nx,1\n', 1, "a quote opens in this row and is never closed"),
    ],
)
def test_csv_faults_name_the_line(write: Write, text: str, line: int, said: str) -> None:
    path = write("x.csv", text)
    assert refusal(path).startswith(f"{path}:{line}: {said}")


def test_not_utf8_names_the_line(write: Write) -> None:
    path = write("x.csv", b"q,a\nx,1\ncaf\xe9,2\n")
    assert refusal(path).startswith(f"{path}:3: not UTF-8 text")
    assert "not UTF-8" in refusal(write("y.csv", "q,a\nx,1\n".encode("utf-16")))


@pytest.mark.parametrize("content", ["", "  \n \n", "\ufeff", "\ufeff\n"])
@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl"])
def test_empty_file(write: Write, name: str, content: str) -> None:
    path = write(name, content)
    assert refusal(path) == f"{path}: the file is empty"


@pytest.mark.parametrize(
    ("name", "content"), [("x.csv", "q,a\n"), ("x.json", "[]"), ("x.json", '{"q": []}'), ("x.jsonl", "{}\n")]
)
def test_no_rows(write: Write, name: str, content: str) -> None:
    path = write(name, content)
    assert refusal(path) == f"{path}: there are no rows"


def test_jsonl(write: Write) -> None:
    path = write("x.jsonl", '{"q": "a\u2028b\x85c", "n": 1.5}\r\n\n{"q": null, "extra": [1, {"x": "ü"}]}\n')
    found = table(path)
    assert found.columns == {"q": ["a\u2028b\x85c", None], "n": [1.5, None], "extra": [None, [1, {"x": "ü"}]]}
    assert [found.place(row) for row in range(2)] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{bad}", "not valid JSON"),
        ("[1]", 'expected an object such as {"input": ...}, got list'),
        ("3", "expected an object"),
        ('{"a": 1', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_jsonl_faults_name_the_line(write: Write, line: str, said: str) -> None:
    path = write("x.jsonl", f'{{"a": 1}}\n\n{line}\n')
    assert refusal(path).startswith(f"{path}:3: {said}")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(COLUMNS),
        json.dumps({"version": "1", "data": ROWS}),
        "\n".join(json.dumps(row) for row in ROWS),
    ],
)
def test_json_as_rows_columns_or_lines(write: Write, content: str) -> None:
    assert table(write("x.json", content)).columns == COLUMNS


def test_json_columns_of_conversations(write: Write) -> None:
    turns = [[{"role": "user", "content": "x"}], [{"role": "user", "content": "y"}]]
    assert table(write("x.json", json.dumps({"messages": turns}))).columns == {"messages": turns}
    assert table(write("x.json", json.dumps({"m": [{"a": 1}], "n": [{"b": 2}]}))).columns == {
        "m": [{"a": 1}],
        "n": [{"b": 2}],
    }


def test_json_single_row(write: Write) -> None:
    path = write("x.json", '{"q": "a", "tags": ["x", "y"]}')
    assert table(path).columns == {"q": ["a"], "tags": [["x", "y"]]}
    assert table(path).place(0) == f"{path}, row 1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"q": 1}, 3]', "{path}, row 2: expected an object, got int"),
        ('[{"q": 1},\n {"q" 2}]', "{path}:2: not valid JSON: Expecting ':' delimiter"),
        ("3", "{path}: expected a list of rows"),
        ('{"a": [1, 2], "b": [1]}', "{path}: expected a list of rows, or columns of the same length"),
        ("[" * 100_000, "{path}: nested too deeply"),
    ],
)
def test_json_faults(write: Write, content: str, said: str) -> None:
    path = write("x.json", content)
    assert refusal(path).startswith(said.replace("{path}", str(path)))


def test_parquet_and_arrow(tmp_path: Path) -> None:
    made = pa.table({"q": ["a", None], "n": [1, 2], "m": [[{"role": "user"}], []], "t": [datetime(2024, 1, 2)] * 2})
    parquet.write_table(made, tmp_path / "x.parquet")
    with ipc.new_file(tmp_path / "file.arrow", made.schema) as sink:
        sink.write_table(made)
    with ipc.new_stream(tmp_path / "stream.arrow", made.schema) as sink:
        sink.write_table(made)
    for name in ("x.parquet", "file.arrow", "stream.arrow"):
        found = table(tmp_path / name)
        assert found.columns == made.to_pydict()
        assert found.place(1) == f"{tmp_path / name}, row 2"


def test_damaged_binary_files(write: Write, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"q": ["a"] * 1000}), tmp_path / "whole.parquet")
    half = (tmp_path / "whole.parquet").read_bytes()
    for name, content in (
        ("cut.parquet", half[:-30]),
        ("cut.arrow", half[:-30]),
        ("empty.parquet", b""),
        ("empty.arrow", b""),
    ):
        path = write(name, content)
        assert refusal(path).startswith(f"{path}: not a {path.suffix[1:]} file that can be read")
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["q", "q"])
    with ipc.new_file(tmp_path / "twice.arrow", twice.schema) as sink:
        sink.write_table(twice)
    assert refusal(tmp_path / "twice.arrow").endswith("the column 'q' stands twice")


def test_gzip(write: Write) -> None:
    whole = gzip.compress(b"q,a\na,1\nb,2\n")
    assert table(write("x.csv.gz", whole)).columns == COLUMNS
    assert table(write("x.jsonl.gz", gzip.compress(b'{"q": 1}'))).columns == {"q": [1]}
    for name, content in (
        ("cut.csv.gz", whole[:-9]),
        ("plain.csv.gz", b"q,a\na,1\n"),
        ("bad.csv.gz", whole[:12] + b"xxxx" + whole[16:]),
    ):
        path = write(name, content)
        assert refusal(path).startswith(f"{path}: not a whole gzip file")


def test_folder_of_datasets(tmp_path: Path) -> None:
    datasets.Dataset.from_dict(COLUMNS).save_to_disk(tmp_path / "one")
    assert table(tmp_path / "one").columns == COLUMNS
    parts = {"train": datasets.Dataset.from_dict(COLUMNS), "test": datasets.Dataset.from_dict({"q": ["c"], "a": ["3"]})}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "two")
    found = read(tmp_path / "two")
    assert {name: part.columns for name, part in found.items()} == {"train": COLUMNS, "test": {"q": ["c"], "a": ["3"]}}
    assert found["test"].place(0) == f"{tmp_path / 'two'}[test], row 1"
    (tmp_path / "none").mkdir()
    assert "not one that Dataset.save_to_disk wrote" in refusal(tmp_path / "none")


def test_glob_reads_files_in_order_of_their_names(write: Write, tmp_path: Path) -> None:
    for name, row in (("b.csv", "a,q\n2,b\n"), ("a.csv", "q,a\na,1\n"), ("c.txt", "no")):
        write(name, row)
    found = table(str(tmp_path / "*.csv"))
    assert found.columns == COLUMNS
    assert [found.place(row) for row in range(2)] == [f"{tmp_path / 'a.csv'}:2", f"{tmp_path / 'b.csv'}:2"]
    write("d.csv", "q,other\nx,y\n")
    assert (
        refusal(str(tmp_path / "*.csv"))
        == f"{tmp_path / 'd.csv'}: its columns differ from {tmp_path / 'a.csv'}: a, other"
    )


def test_file_beside_the_yaml_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yaml").mkdir()
    (tmp_path / "x.csv").write_text("q\nworking\n")
    (tmp_path / "yaml" / "x.csv").write_text("q\nbeside\n")
    monkeypatch.chdir(tmp_path)
    assert read("x.csv", tmp_path / "yaml")[""].columns == {"q": ["beside"]}
    assert read("x.csv", tmp_path / "other")[""].columns == {"q": ["working"]}


def test_missing_file_names_the_nearest(write: Write, tmp_path: Path) -> None:
    write("tickets.csv", "q\n1\n")
    with pytest.raises(MissingFileError, match=r"tikets\.csv: no such file, did you mean 'tickets\.csv'\?"):
        read("tikets.csv", tmp_path)
    for name in ("a" * 5000, "nul\0.csv", str(tmp_path / "*.none")):
        with pytest.raises(MissingFileError):
            read(name, tmp_path)


def test_folder_with_a_files_name(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "y.csv").mkdir()
    assert "cannot be read" in refusal(str(tmp_path / "*.csv"))


def test_missing_column_names_the_nearest(write: Write) -> None:
    path = write("x.csv", "question,answer\na,b\n")
    with pytest.raises(DataError) as caught:
        table(path).column("qestion", "the input feature")
    said = str(caught.value)
    assert said.startswith(f"{path}: there is no column 'qestion' (the input feature), did you mean 'question'?")
    assert said.endswith("The columns are: question, answer")


def test_data_frame() -> None:
    frame = pd.DataFrame(
        {"q": ["a", None, "c"], "n": [1.5, float("nan"), 2], 3: [pd.NaT, pd.Timestamp("2024-01-02"), pd.NaT]}
    )
    frame["arrays"] = [[1], None, [{"x": 2}]]
    frame["whole"] = pd.array([1, None, 3], dtype="Int64")
    assert table(frame).columns == {
        "q": ["a", None, "c"],
        "n": [1.5, None, 2.0],
        "3": [None, datetime(2024, 1, 2), None],
        "arrays": [[1], None, [{"x": 2}]],
        "whole": [1, None, 3],
    }
    assert table(frame).place(2) == "row 3"


def test_data_frame_read_from_parquet_keeps_conversations(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]]
    parquet.write_table(pa.table({"messages": turns}), tmp_path / "x.parquet")
    assert table(pd.read_parquet(tmp_path / "x.parquet")).columns == {"messages": turns}


def test_data_frame_with_a_column_twice() -> None:
    assert "stands twice" in refusal(pd.DataFrame([[1, 2]], columns=["q", "q"]))


def test_values_in_memory() -> None:
    assert table(ROWS).columns == COLUMNS
    assert table(COLUMNS).columns == COLUMNS
    assert table(datasets.Dataset.from_dict(COLUMNS)).columns == COLUMNS
    assert table(datasets.Dataset.from_dict({"n": [1, 2]}).with_format("numpy")).columns == {"n": [1, 2]}
    parts = datasets.DatasetDict({"train": datasets.Dataset.from_dict(COLUMNS)})
    assert {name: part.columns for name, part in read(parts).items()} == {"train": COLUMNS}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "the data: there are no rows"),
        ({}, "the data: there are no rows"),
        ({"q": ["a"], "a": []}, "the columns given are not of the same length"),
        ({"q": "hello", "a": "you"}, "the column 'q' is no list of cells; a single row is given as a list of one dict"),
        ({"q": 3}, "the column 'q' is no list of cells"),
        (3, "cannot read rows from builtins.int"),
        (["a", "b"], "cannot read rows from builtins.list"),
        (pd.DataFrame(), "the data: there are no rows"),
        (datasets.Dataset.from_dict({"q": []}), "the dataset: there are no rows"),
    ],
)
def test_values_in_memory_that_are_no_rows(source: Any, said: str) -> None:
    assert refusal(source).startswith(said)


def test_fingerprints(write: Write, tmp_path: Path) -> None:
    path = write("x.csv", "q,a\na,1\n")
    first = source_fingerprint(path, tmp_path)
    assert table(path).fingerprint == first
    write("x.csv", "q,a\na,2\n")
    assert source_fingerprint(path, tmp_path) != first
    assert table(ROWS).fingerprint == table(COLUMNS).fingerprint != table(ROWS[:1]).fingerprint
    long = pd.DataFrame({"x": [list(range(5000))]}), pd.DataFrame({"x": [[*range(2500), 0, *range(2501, 5000)]]})
    assert table(long[0]).fingerprint != table(long[1]).fingerprint


def test_hub_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert is_hub_name("hf://anything", tmp_path)
    assert is_hub_name("owner/name", tmp_path)
    for name in ("rows.csv", "owner/rows.csv", "data/rows", "/abs/path", "a/b/c", "data/*"):
        assert not is_hub_name(name, tmp_path)


def test_a_million_rows(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    path.write_text("q,a\n" + "".join(f"question {n},{n}\n" for n in range(1_000_000)))
    found = table(path)
    assert len(found) == 1_000_000
    assert found.row(999_999) == {"q": "question 999999", "a": "999999"}
    assert found.place(999_999) == f"{path}:1000001"
