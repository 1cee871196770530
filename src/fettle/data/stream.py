"""Documents read from disk when they are asked for; all that is kept in memory is where each of them lies.

jsonl, parquet and plain text files of any size stand behind the same Table as rows in memory; a document itself has to fit.
"""

from __future__ import annotations

import bisect
import json
import mmap
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, overload

from fettle.data.table import Origin, Table
from fettle.errors import DataError

TEXT_ENDINGS = (".txt", ".text", ".md")


class Records(Protocol):
    """The rows of one file."""

    @property
    def path(self) -> Path: ...

    @property
    def lines(self) -> Sequence[int] | None:
        """Line at which each row begins, where that is known."""

    def __len__(self) -> int: ...

    def columns(self) -> list[str]:
        """Names of the columns, as far as the first row shows them."""

    def read(self, position: int) -> dict[str, Any]:
        """One row."""


class JsonLines:
    """Objects line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts: Sequence[int] = array("Q")
        self.lines: Sequence[int] = array("Q")
        position = 0
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.isspace():
                    self.starts.append(position)
                    self.lines.append(number)
                position += len(line)

    def __len__(self) -> int:
        return len(self.starts)

    def columns(self) -> list[str]:
        return list(self.read(0)) if len(self) else []

    def read(self, position: int) -> dict[str, Any]:
        place = f"{self.path}:{self.lines[position]}"
        with self.path.open("rb") as stream:
            stream.seek(self.starts[position])
            line = stream.readline()
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 text (byte {error.start} of the line); save it as UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f'{place}: expected an object such as {{"text": ...}}, got {type(record).__name__}')
        return record


class PlainText:
    """Documents of a text file, between separators; the column takes the name that is asked for."""

    def __init__(self, path: Path, column: str, separator: str | None) -> None:
        self.path, self.column = path, column
        self.starts, self.ends, self.lines = array("Q"), array("Q"), array("Q")
        self._bytes: bytes | mmap.mmap = b""
        if path.stat().st_size:
            with path.open("rb") as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        mark = separator.encode() if separator is not None else None
        start, line, size = 0, 1, len(self._bytes)
        while start < size:
            found = self._bytes.find(mark, start) if mark is not None else -1
            end = size if found < 0 else found
            if not self._bytes[start:end].isspace() and end > start:
                self.starts.append(start)
                self.ends.append(end)
                self.lines.append(line)
            following = end if mark is None or found < 0 else end + len(mark)
            line += self._bytes[start:following].count(b"\n")
            start = following

    def __len__(self) -> int:
        return len(self.starts)

    def columns(self) -> list[str]:
        return [self.column]

    def read(self, position: int) -> dict[str, Any]:
        data = self._bytes[self.starts[position] : self.ends[position]]
        try:
            text = data.decode("utf-8-sig" if self.starts[position] == 0 else "utf-8")
        except UnicodeDecodeError as error:
            line = self.lines[position] + data[: error.start].count(b"\n")
            raise DataError(f"{self.path}:{line}: not UTF-8 text; save the file as UTF-8") from None
        return {self.column: text.replace("\r\n", "\n").strip("\n")}


class Parquet:
    """Rows of a parquet file, a row group in memory at a time."""

    lines: Sequence[int] | None = None

    def __init__(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        self.path = path
        try:
            self._file = parquet.ParquetFile(path, memory_map=True)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a parquet file that can be read: {error}") from None
        groups = self._file.metadata.num_row_groups
        self._ends = list(accumulate(self._file.metadata.row_group(group).num_rows for group in range(groups)))
        self._group: tuple[int, dict[str, Any]] = (-1, {})

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def columns(self) -> list[str]:
        return list(self._file.schema_arrow.names)

    def read(self, position: int) -> dict[str, Any]:
        group = bisect.bisect_right(self._ends, position)
        if self._group[0] != group:
            table = self._file.read_row_group(group)
            self._group = (group, {name: table.column(name) for name in table.column_names})
        first = self._ends[group - 1] if group else 0
        return {name: column[position - first].as_py() for name, column in self._group[1].items()}


class Column(Sequence[Any]):
    """One column of several files end to end; a cell is read when it is asked for."""

    def __init__(self, files: Sequence[Records], name: str) -> None:
        self.name = name
        self._files = files
        self._ends = list(accumulate(len(file) for file in files))
        self._read = lru_cache(maxsize=1)(self._row)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _row(self, index: int) -> dict[str, Any]:
        file = bisect.bisect_right(self._ends, index)
        return self._files[file].read(index - (self._ends[file - 1] if file else 0))

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._read(index).get(self.name)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def stream(paths: Sequence[Path], data_format: str, text_column: str, separator: str | None) -> Table | None:
    """A table over files that can be read piece by piece; None where one of them cannot (csv, json, zipped files).

    Args:
        data_format: kind of all files, or `auto` to go by their endings.
        separator: what stands between the documents of a plain text file; None makes a file one document.

    Raises:
        DataError: a file cannot be read, or holds nothing.
    """
    kinds = [kind(path, data_format) for path in paths]
    if any(one is None for one in kinds):
        return None
    files: list[Records] = []
    for path, one in zip(paths, kinds, strict=True):
        try:
            if one == "text":
                files.append(PlainText(path, text_column, separator))
            else:
                read = JsonLines(path) if one == "jsonl" else Parquet(path)
                files.append(read)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    empty = next((file.path for file in files if not len(file)), None)
    if empty is not None:
        raise DataError(f"{empty}: the file is empty")
    firsts = [0, *accumulate(len(file) for file in files)]
    origins = [Origin(first, str(file.path), file.lines) for first, file in zip(firsts, files, strict=False)]
    names = dict.fromkeys(name for file in files for name in file.columns())
    return Table({name: Column(files, name) for name in names}, origins)


def kind(path: Path, data_format: str = "auto") -> str | None:
    """text, jsonl or parquet; None where a file cannot be read piece by piece."""
    if path.is_dir():
        return None
    if data_format != "auto":
        return data_format if data_format in ("text", "jsonl", "parquet") and path.suffix != ".gz" else None
    if path.suffix.lower() in TEXT_ENDINGS:
        return "text"
    return {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}.get(path.suffix.lower())
