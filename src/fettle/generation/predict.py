"""Answers to the rows of a table, streamed in the rows' order into a file or a caller's hands."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.errors import DataError, OutputExistsError
from fettle.files import whole_file
from fettle.generation.decode import WINDOW, Answer, Decoder
from fettle.prepare import Rows
from fettle.rows import as_text

ENDINGS = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Prediction:
    """One row's answer, its columns, and the text it should have been where that is known.

    A row that an empty cell drops has no answer; it keeps its place.
    """

    index: int
    columns: Mapping[str, Any]
    prompt: str
    target: str | None
    answer: Answer | None


def predict(decoder: Decoder, rows: Rows, indices: Sequence[int], batch_size: int) -> Iterator[Prediction]:
    """Answer rows, in their order."""
    step = max(1, batch_size) * WINDOW
    source = rows.prompts(indices)
    while chunk := list(itertools.islice(source, step)):
        answers = decoder.answers([ids for _, row, ids in chunk if row is not None], batch_size)
        for index, row, ids in chunk:
            if row is None:
                yield Prediction(index, rows.table.row(index), "", None, None)
            else:
                prompt = rows.tokenizer.decode(ids, skip_special=False)
                target = rows.renderer.response(row)
                yield Prediction(index, rows.table.row(index), prompt, target, next(answers))


def record(prediction: Prediction, name: str) -> dict[str, Any]:
    """What a file holds of a prediction: the row's columns, then the response and how it came about."""
    answer = prediction.answer
    own = {
        f"{name}_response": answer.text if answer else None,
        f"{name}_probability": probability(answer) if answer else None,
        f"{name}_stopped": answer.stopped if answer else None,
        f"{name}_truncated": answer.truncated if answer else None,
    }
    return {**prediction.columns, **own}


def probability(answer: Answer) -> float:
    """Probability of the whole answer: the product over its tokens."""
    product = 1.0
    for chance in answer.probabilities:
        product *= chance
    return product


@contextmanager
def writer(path: Path, overwrite: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that appends a record to a .jsonl, .csv or .parquet file, which appears when all are written.

    Raises:
        OutputExistsError: the file is there already.
        DataError: the ending is none of these.
    """
    if path.suffix not in ENDINGS:
        raise DataError(f"{path}: cannot tell what to write; end the name in {', '.join(ENDINGS)}")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: is there already; remove it, choose another name, or pass --overwrite")
    with whole_file(path) as part:
        if path.suffix == ".parquet":
            with _parquet(part) as put:
                yield put
        else:
            with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                yield _csv(stream) if path.suffix == ".csv" else _jsonl(stream)


def _jsonl(stream: Any) -> Callable[[Mapping[str, Any]], None]:
    def put(row: Mapping[str, Any]) -> None:
        stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    return put


def _csv(stream: Any) -> Callable[[Mapping[str, Any]], None]:
    rows = csv.writer(stream)
    header: list[str] = []

    def put(row: Mapping[str, Any]) -> None:
        if not header:
            header.extend(row)
            rows.writerow(header)
        rows.writerow([as_text(row[name]) for name in header])

    return put


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Groups of a thousand rows; the row's own columns as text, because later rows may hold other types."""
    import pyarrow
    from pyarrow import parquet

    waiting: list[Mapping[str, Any]] = []
    file: Any = None

    def flush() -> None:
        nonlocal file
        own = [name for name in waiting[0] if name.rpartition("_")[2] in ("probability", "stopped", "truncated")]
        columns = {name: [row[name] if name in own else as_text(row[name]) for row in waiting] for name in waiting[0]}
        table = pyarrow.table(columns)
        if file is None:
            file = parquet.ParquetWriter(path, table.schema)
        file.write_table(table)
        waiting.clear()

    def put(row: Mapping[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) >= 1000:
            flush()

    try:
        yield put
        if waiting:
            flush()
    finally:
        if file is not None:
            file.close()


def frame(predictions: Iterable[Prediction], name: str, tokens: Callable[[int], str]) -> Any:
    """A pandas DataFrame in Ludwig's columns: `<f>_predictions` (tokens), `<f>_response`, `<f>_probabilities`, `<f>_probability`."""
    import pandas

    rows = []
    for one in predictions:
        answer = one.answer
        found = (
            ([tokens(token) for token in answer.ids], answer.text, answer.probabilities, probability(answer))
            if answer
            else (None, None, None, None)
        )
        rows.append(found)
    columns = [f"{name}_{part}" for part in ("predictions", "response", "probabilities", "probability")]
    return pandas.DataFrame(rows, columns=columns)
