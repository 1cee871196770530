"""From a path, a hub name, a data frame or rows in memory to a Table.

Text files are read by the standard library, so that every cell stays the text it is (`007` is no number) and every fault
has its line. Libraries that only one kind of source needs are imported where that source is read.
"""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import io
import json
import os
import sys
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fettle.data.table import Origin, Table, concatenate, from_records
from fettle.errors import DataError, MissingFileError, nearest

ENDINGS = {
    ".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip


def find(name: str, folder: Path) -> list[Path]:
    """The files a path or glob names, beside the YAML first, then in the working folder.

    Raises:
        MissingFileError: there is none.
    """
    for base in (folder, Path.cwd()):
        matches = _matches(base / name)
        if matches:
            return [_shown(match) for match in matches]
    places = dict.fromkeys(str(place) for place in (folder.resolve(), Path.cwd()))
    parent = (folder / name).parent
    beside = [entry.name for entry in parent.glob("*")] if os.path.isdir(parent) else []
    raise MissingFileError(f"{name}: no such file{nearest(Path(name).name, beside)} (looked in {' and '.join(places)})")


def _matches(path: Path) -> list[Path]:
    """The path if it is there, else what it matches as a glob."""
    if os.path.exists(path):  # unlike Path.exists, also for a name too long for the system
        return [path]
    is_glob = any(mark in path.name or mark in str(path.parent) for mark in "*?[")
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))] if is_glob else []


def absolute(name: str, folder: Path) -> str:
    """A source's name that means the same from every folder: hub names as they are, paths and globs made absolute."""
    if is_hub_name(name, folder):
        return name
    base = next((base for base in (folder, Path.cwd()) if _matches(base / name)), folder)
    return str(base.resolve() / name)


def _shown(path: Path) -> Path:
    """The path as a user in the working folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def is_hub_name(name: str, folder: Path) -> bool:
    """Whether a dataset is meant to come from the hub: `hf://name`, or `owner/name` that is no local path."""
    if name.startswith("hf://"):
        return True
    plain = name.count("/") == 1 and not any(mark in name for mark in ".*?[\\") and not name.startswith("/")
    return plain and not any(
        os.path.exists(base / part) for base in (folder, Path()) for part in (name, Path(name).parent)
    )


def source_fingerprint(source: Any, folder: Path) -> str | None:
    """Hash of the bytes of the files behind a source, without parsing them; None where only reading can tell."""
    if not isinstance(source, (str, Path)) or is_hub_name(str(source), folder):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for path in find(str(source), folder):
        for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if part.is_file():
                digest.update(part.name.encode(errors="surrogateescape"))
                try:
                    with part.open("rb") as stream:
                        while block := stream.read(1 << 22):
                            digest.update(block)
                except PermissionError:
                    raise DataError(f"{part}: may not be read (permission)") from None
    return digest.hexdigest()


def read(source: Any, folder: Path = Path(), data_format: str = "auto") -> dict[str, Table]:
    """Read a source into tables: {"": table}, or one per split where the source has named splits.

    Args:
        source: path, glob, hub name, pandas DataFrame, `datasets.Dataset`, dict of columns, or list of rows.

    Raises:
        MissingFileError, DataError: the source cannot be read; the message names file and row.
    """
    if isinstance(source, (str, Path)):
        if is_hub_name(str(source), folder):
            return _from_hub(str(source).removeprefix("hf://"))
        paths = find(str(source), folder)
        if len(paths) == 1 and paths[0].is_dir():
            return _from_folder(paths[0])
        table = concatenate([_from_file(path, data_format) for path in paths])
        table.fingerprint = source_fingerprint(source, folder) or ""
    elif type(source).__name__ == "DatasetDict":
        return _from_datasets(source, "the dataset")
    else:
        table = _from_memory(source)
    if len(table) == 0:
        raise DataError(f"{table.origins[0].name if table.origins else 'the data'}: there are no rows")
    return {"": table}


def _from_file(path: Path, data_format: str) -> Table:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    ending = "".join(suffixes[:-1][-1:] if zipped else suffixes[-1:])
    kind = ENDINGS.get(ending) if data_format == "auto" else data_format
    if kind is None:
        raise DataError(
            f"{path}: cannot tell the kind of file by its ending; save tables as CSV (UTF-8), or set dataset.data_format where it is "
            f"one of {', '.join(sorted(set(ENDINGS.values())))}"
        )
    if kind in ("parquet", "arrow"):
        return _read_arrow(path, kind)
    readers: dict[str, Callable[[str, Path], Table]] = {
        "csv": _read_csv,
        "tsv": _read_csv,
        "json": _read_json,
        "jsonl": _read_jsonl,
    }
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            data = stream.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return readers[kind](text, path) if kind != "tsv" else _read_csv(text, path, "\t")


def _read_csv(text: str, path: Path, delimiter: str = ",") -> Table:
    csv.field_size_limit(sys.maxsize)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{line}: holds a NUL character; is this a text file? Save it as UTF-8")
    header_line = text.lstrip().partition("\n")[0]
    if delimiter == "," and "," not in header_line and ";" in header_line:
        delimiter = ";"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = array("Q")
    line = 1
    try:
        header = next(cells for cells in reader if cells)
        _check_header(header, path, reader.line_num)
        columns: list[list[str]] = [[] for _ in header]
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                break
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}:{line}: {len(cells)} cells where the header has {len(header)}; "
                    f"is a quote missing, or {delimiter!r} unquoted in a cell?"
                )
            lines.append(line)
            for column, cell in zip(columns, cells, strict=True):
                column.append(cell)
    except csv.Error as error:
        open_ended = "unexpected end" in str(error)
        said = "a quote opens in this row and is never closed" if open_ended else f"this row is no CSV: {error}"
        raise DataError(f"{path}:{line}: {said}") from None
    return Table(dict(zip(header, columns, strict=True)), [Origin(0, str(path), lines)])


def _check_header(header: list[str], path: Path, line: int) -> None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:{line}: the column {twice!r} stands twice in the header")


def _read_jsonl(text: str, path: Path) -> Table:
    records, lines = [], array("Q")
    for number, line in enumerate(text.split("\n"), start=1):  # str.splitlines would cut inside texts, at U+2028
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(
                f'{path}:{number}: expected an object such as {{"input": ...}}, got {type(record).__name__}'
            )
        records.append(record)
        lines.append(number)
    return Table(from_records(records), [Origin(0, str(path), lines)])


def _read_json(text: str, path: Path) -> Table:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # rows line by line under the ending .json
            return _read_jsonl(text, path)
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{path}: not usable JSON: {error}") from None
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        rows = len(lists) == 1 and all(isinstance(item, dict) for item in lists[0])
        if len(lists) == len(data) and not rows:
            if len({len(value) for value in lists}) > 1:
                raise DataError(f"{path}: expected a list of rows, or columns of the same length")
            return Table({str(key): list(value) for key, value in data.items()}, [Origin(0, str(path))])
        data = lists[0] if rows else [data]
    if not isinstance(data, list):
        raise DataError(f"{path}: expected a list of rows")
    for number, record in enumerate(data, start=1):
        if not isinstance(record, dict):
            raise DataError(f"{path}, row {number}: expected an object, got {type(record).__name__}")
    return Table(from_records(data), [Origin(0, str(path))])


def _read_arrow(path: Path, kind: str) -> Table:
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        if kind == "parquet":
            table = parquet.read_table(path)
        else:
            with pyarrow.memory_map(str(path)) as source:
                try:
                    table = ipc.open_stream(source).read_all()
                except pyarrow.ArrowInvalid:
                    table = ipc.open_file(source).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a {kind} file that can be read: {error}") from None
    twice = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: the column {twice!r} stands twice")
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(columns, [Origin(0, str(path))])


def _from_folder(path: Path) -> dict[str, Table]:
    """A folder written by `Dataset.save_to_disk`."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{path}: a folder, but not one that Dataset.save_to_disk wrote: {error}") from None
    return _from_datasets(loaded, str(path))


def _from_hub(name: str) -> dict[str, Table]:
    import datasets

    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, ConnectionError) as error:
        raise MissingFileError(
            f"{name}: not found on the hub, nor as a local path: {str(error).splitlines()[0]}"
        ) from None
    return _from_datasets(loaded, name)


def _from_datasets(loaded: Any, name: str) -> dict[str, Table]:
    if isinstance(loaded, dict):
        return {split: _from_datasets(part, f"{name}[{split}]")[""] for split, part in loaded.items()}
    plain = loaded.with_format(None)
    columns = {column: list(plain[column]) for column in plain.column_names}
    if not len(plain):
        raise DataError(f"{name}: there are no rows")
    return {"": Table(columns, [Origin(0, name)], loaded._fingerprint)}


def _from_memory(source: Any) -> Table:
    """A pandas DataFrame, a `datasets.Dataset`, a dict of columns or a list of rows."""
    kind = f"{type(source).__module__.partition('.')[0]}.{type(source).__name__}"
    if kind == "pandas.DataFrame":
        if not source.columns.is_unique:
            raise DataError("a column's name stands twice in the data frame")
        columns = {
            str(name): [None if gap else _plain(cell) for cell, gap in zip(cells.tolist(), cells.isna(), strict=True)]
            for name, cells in source.items()
        }
    elif kind == "datasets.Dataset":
        return _from_datasets(source, "the dataset")[""]
    elif isinstance(source, Mapping):
        single = next(
            (
                name
                for name, cells in source.items()
                if isinstance(cells, (str, bytes)) or not hasattr(cells, "__iter__")
            ),
            None,
        )
        if single is not None:
            raise DataError(f"the column {single!r} is no list of cells; a single row is given as a list of one dict")
        columns = {str(name): [_plain(cell) for cell in cells] for name, cells in source.items()}
        if len({len(cells) for cells in columns.values()}) > 1:
            raise DataError("the columns given are not of the same length")
    elif isinstance(source, Sequence) and all(isinstance(record, Mapping) for record in source):
        columns = {str(name): [_plain(cell) for cell in cells] for name, cells in from_records(source).items()}
    else:
        raise DataError(
            f"cannot read rows from {kind}; give a path, a DataFrame, a datasets.Dataset, a dict of columns or a list of dicts"
        )
    digest = hashlib.blake2b(json.dumps(columns, default=repr, sort_keys=True).encode(), digest_size=16)
    return Table(columns, [], digest.hexdigest())


def _plain(cell: Any) -> Any:
    """A cell without numpy's types: parquet files read by pandas hold their lists as arrays."""
    if type(cell).__module__ == "numpy":
        cell = cell.tolist()
    if isinstance(cell, (list, tuple)):
        return [_plain(item) for item in cell]
    return {str(key): _plain(item) for key, item in cell.items()} if isinstance(cell, dict) else cell
