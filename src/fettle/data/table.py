"""Rows in memory, by column, each with the place it came from."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fettle.errors import DataError, nearest


@dataclass(frozen=True)
class Origin:
    """A run of rows from one file: its first row's index in the table, and the line of each row where lines are known."""

    first: int
    name: str
    lines: Sequence[int] | None = None


@dataclass
class Table:
    """Columns of equal length; a cell that a row does not have is None."""

    columns: Mapping[str, Sequence[Any]]
    origins: list[Origin] = field(default_factory=list)
    fingerprint: str = ""
    filled: dict[tuple[str, ...], Sequence[Any]] = field(default_factory=dict)
    """Columns whose gaps were closed, by column and how."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def row(self, index: int) -> dict[str, Any]:
        return {name: cells[index] for name, cells in self.columns.items()}

    def rows(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        return (self.row(index) for index in indices)

    def place(self, index: int) -> str:
        """`rows.csv:17` where the line is known, else `rows.json, row 17` (rows count from 1)."""
        position = bisect.bisect_right([origin.first for origin in self.origins], index) - 1
        if position < 0:
            return f"row {index + 1}"
        origin = self.origins[position]
        if origin.lines is not None:
            return f"{origin.name}:{origin.lines[index - origin.first]}"
        return f"{origin.name}, row {index - origin.first + 1}"

    def column(self, name: str, wanted_by: str) -> Sequence[Any]:
        """The cells of a column.

        Raises:
            DataError: there is no such column; the message names the nearest.
        """
        if name not in self.columns:
            source = self.origins[0].name if self.origins else "the data"
            raise DataError(
                f"{source}: there is no column {name!r} ({wanted_by}){nearest(name, self.columns)}. "
                f"The columns are: {', '.join(self.columns)}"
            )
        return self.columns[name]


def from_records(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of row mappings; keys that some rows lack become None there."""
    columns: dict[str, list[Any]] = {}
    for number, record in enumerate(records):
        for key in record:
            if key not in columns:
                columns[key] = [None] * number
        for key, cells in columns.items():
            cells.append(record.get(key))
    return columns


def concatenate(tables: Sequence[Table]) -> Table:
    """One table below the other.

    Raises:
        DataError: their columns differ.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    columns = {name: list(cells) for name, cells in first.columns.items()}
    origins = list(first.origins)
    count = len(first)
    for table in tables[1:]:
        if set(table.columns) != set(columns):
            odd = sorted(set(table.columns) ^ set(columns))
            raise DataError(f"{table.origins[0].name}: its columns differ from {origins[0].name}: {', '.join(odd)}")
        for name, cells in columns.items():
            cells += table.columns[name]
        origins += [Origin(origin.first + count, origin.name, origin.lines) for origin in table.origins]
        count += len(table)
    return Table(columns, origins, "+".join(table.fingerprint for table in tables))
