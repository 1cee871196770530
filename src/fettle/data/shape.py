"""From a table to canonical rows: which columns are read and written, what happens to empty cells.

Every fault of a row names its file and line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.data.config import Dataset
from fettle.data.feature_config import CategoryPreprocessing, InputFeature, OutputFeature, TextPreprocessing
from fettle.data.table import Table
from fettle.errors import DataError
from fettle.rows import Message, Row, as_text

CellRules = TextPreprocessing | CategoryPreprocessing
ROLES = ("system", "user", "assistant", "tool", "developer")


@dataclass(frozen=True)
class Shape:
    """How rows are to be read: the columns of the input, the response, or the conversation."""

    format: str
    input: str | None = None
    output: str | None = None
    messages: str | None = None
    named: tuple[str, ...] = ()
    """Columns that the prompt template names."""
    sampled: bool = True
    """The prompt shows the input itself."""

    @property
    def target(self) -> str:
        """The column a prediction is compared with."""
        return self.output or self.messages or "output"


def resolve(
    dataset: Dataset,
    inputs: Sequence[InputFeature],
    outputs: Sequence[OutputFeature],
    named: Sequence[str],
    table: Table,
    training: bool = True,
    sampled: bool = True,
) -> Shape:
    """Decide how rows are read, and make sure that every column they need is there.

    Args:
        named: columns that the prompt template names.
        training: the response is needed as well.
        sampled: the prompt shows the input itself.

    Raises:
        DataError: a column is missing, or the shape cannot be told.
    """
    how: str = dataset.format
    if how == "auto":
        how = "columns" if outputs else _guess(table, dataset)
    if how == "messages":
        table.column(dataset.messages_column, "the conversation, dataset.messages_column")
        return Shape("messages", messages=dataset.messages_column)
    if how == "text":
        table.column(dataset.text_column, "the document, dataset.text_column")
        return Shape("text", input=dataset.text_column)
    if how == "alpaca":
        wanted = outputs[0].column or outputs[0].name if outputs else "output"
        shape = Shape("alpaca", "instruction", wanted, named=tuple(named), sampled=sampled)
    else:
        reading, writing = (side[0].column or side[0].name for side in (inputs, outputs))
        shape = Shape("columns", reading, writing, named=tuple(named), sampled=sampled)
    for name in shape.named:
        table.column(name, "named by prompt.template")
    if shape.input is not None and shape.sampled:
        table.column(shape.input, "the input feature")
    if training and shape.output is not None:
        table.column(shape.output, "the output feature")
    return shape


def _guess(table: Table, dataset: Dataset) -> str:
    columns = set(table.columns)
    if dataset.messages_column in columns:
        return "messages"
    if {"instruction", "output"} <= columns or "instruction" in columns:
        return "alpaca"
    if dataset.text_column in columns:
        return "text"
    raise DataError(
        f"cannot tell which columns to read from {', '.join(table.columns)}; name them with input_features and output_features "
        "(`fettle init` writes them)"
    )


def canonical(
    table: Table,
    indices: Sequence[int],
    shape: Shape,
    inputs: Sequence[InputFeature],
    outputs: Sequence[OutputFeature],
    training: bool = True,
) -> Iterator[tuple[int, Row | None]]:
    """(index, row) for each of the indices; None where an empty cell drops the row.

    Raises:
        DataError: a cell is empty or of the wrong kind; the message names file and line.
    """
    if shape.format == "messages":
        assert shape.messages is not None
        for index in indices:
            yield index, Row({}, messages=_conversation(table, index, shape.messages, training))
        return
    if shape.format == "text":
        assert shape.input is not None
        for index in indices:
            text = _document(table, index, shape.input)
            yield index, Row({}, sample=text) if text.strip() else None
        return
    reading = inputs[0].preprocessing if inputs else TextPreprocessing()
    writing = outputs[0].preprocessing if outputs else TextPreprocessing()
    needed = set(shape.named)
    if shape.input is not None and shape.sampled:
        needed.add(shape.input)
    optional = {"input"} & set(table.columns) if shape.format == "alpaca" else set()
    columns = {name: _filled(table, name, reading) for name in needed - optional}
    responses = _filled(table, shape.output, writing) if shape.output and shape.output in table.columns else None
    for index in indices:
        row = table.row(index)
        kept = all(_present(table, index, name, cells[index], reading) for name, cells in columns.items())
        row |= {name: _lowered(cells[index], reading) for name, cells in columns.items()}
        row |= {name: "" if _empty(row[name]) else _lowered(row[name], reading) for name in optional}
        response = None
        if responses is not None and (training or not _empty(responses[index])):
            kept = kept and _present(table, index, str(shape.output), responses[index], writing)
            response = as_text(_lowered(responses[index], writing))
        sample = as_text(row.get(shape.input)) if shape.input is not None else ""
        yield index, Row(row, sample, response) if kept else None


def _empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and cell != cell)


def _filled(table: Table, name: str, how: CellRules) -> Sequence[Any]:
    """A column with its gaps closed; done once, however many chunks are read."""
    key = (name, how.missing_value_strategy, how.fill_value)
    if key not in table.filled:
        table.filled[key] = _fill(table.columns[name], how)
    return table.filled[key]


def _fill(cells: Sequence[Any], how: CellRules) -> Sequence[Any]:
    """The cells with gaps closed by the strategies that close them."""
    strategy = how.missing_value_strategy
    if strategy == "fill_with_const":
        return [how.fill_value if _empty(cell) else cell for cell in cells]
    if strategy == "fill_with_mode":
        counts = Counter(as_text(cell) for cell in cells if not _empty(cell))
        mode = counts.most_common(1)[0][0] if counts else None
        return [mode if _empty(cell) else cell for cell in cells]
    if strategy in ("bfill", "ffill"):
        filled, last = [], None
        for cell in cells if strategy == "ffill" else reversed(cells):
            last = last if _empty(cell) else cell
            filled.append(last)
        return filled if strategy == "ffill" else filled[::-1]
    return cells


def _present(table: Table, index: int, name: str, cell: Any, how: CellRules) -> bool:
    """Whether the row has this cell; False drops it."""
    if not _empty(cell):
        return True
    if how.missing_value_strategy == "drop_row":
        return False
    if how.missing_value_strategy == "fill_with_const":
        return True
    raise DataError(
        f"{table.place(index)}: column {name!r} is empty; fill it in, or set the feature's "
        "preprocessing.missing_value_strategy (drop_row, fill_with_const, ...)"
    )


def _lowered(cell: Any, how: CellRules) -> Any:
    return cell.lower() if how.lowercase and isinstance(cell, str) else cell


def _document(table: Table, index: int, column: str) -> str:
    cell = table.columns[column][index]
    if not isinstance(cell, str) and not _empty(cell):
        raise DataError(f"{table.place(index)}: column {column!r}: expected a text, got {type(cell).__name__}")
    return cell or ""


def _conversation(table: Table, index: int, column: str, training: bool) -> tuple[Message, ...]:
    cell = table.columns[column][index]
    place = f"{table.place(index)}: column {column!r}"
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise DataError(f"{place}: expected a list of messages, got a text that is not JSON") from None
    if not isinstance(cell, list) or not cell:
        raise DataError(
            f"{place}: expected a list of messages with role and content, got {'nothing' if not cell else type(cell).__name__}"
        )
    messages = tuple(_message(message, f"{place}, message {number}") for number, message in enumerate(cell, start=1))
    if training and not any(message["role"] == "assistant" for message in messages):
        raise DataError(f"{place}: there is no assistant message, so nothing in this row carries loss")
    return messages


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, dict) or "role" not in message:
        likely = (
            "; from and value are ShareGPT's words, which are not available yet"
            if isinstance(message, dict) and "from" in message
            else ""
        )
        raise DataError(f"{place}: expected an object with role and content{likely}")
    if message["role"] not in ROLES:
        raise DataError(f"{place}: unknown role {message['role']!r} (one of {', '.join(ROLES)})")
    for key in ("weight", "loss_weight"):
        if key in message:
            raise DataError(f"{place}: {key!r} per message is not available yet")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise DataError(f"{place}: content parts other than text are not available yet")
        if any("loss_weight" in part for part in content):
            raise DataError(f"{place}: 'loss_weight' per message is not available yet")
        content = "".join(str(part.get("text", part.get("value", ""))) for part in content)
    if not isinstance(content, str):
        raise DataError(
            f"{place}: content must be a text, got {'nothing' if content is None else type(content).__name__}"
        )
    return {**message, "content": content}
