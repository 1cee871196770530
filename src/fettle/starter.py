"""A commented starter YAML for a table: columns guessed from their names and from what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fettle.data.read import find, is_hub_name, read
from fettle.data.stream import kind
from fettle.data.table import Table
from fettle.errors import DataError
from fettle.prompt.config import placeholders
from fettle.rows import as_text

_READ = (
    "prompt",
    "input",
    "question",
    "instruction",
    "message",
    "text",
    "query",
    "source",
    "sentence",
    "context",
    "review",
    "document",
)
_WRITE = (
    "response",
    "output",
    "answer",
    "completion",
    "target",
    "label",
    "category",
    "summary",
    "reply",
    "translation",
    "intent",
    "class",
)
_SEEN = 200  # rows looked at


def write(dataset: str, base_model: str) -> str:
    """The YAML's text.

    Raises:
        FettleError: the data cannot be read, or has no two columns.
    """
    head = f"# Written by `fettle init {_one_line(Path(dataset).name)}`; every key: `fettle schema`.\n"
    head += f"model_type: llm\nbase_model: {_quoted(base_model)}\n"
    if not is_hub_name(dataset, Path()) and all(kind(path) == "text" for path in find(dataset, Path())):
        return head + _plain_text(dataset)
    tables = read(dataset)
    table = tables.get("", tables.get("train", next(iter(tables.values()))))
    columns = table.columns
    data = f"\ndataset:\n  path: {_quoted(dataset)}\n"
    if "messages" in columns and isinstance(_first(columns["messages"]), (list, str)):
        body = data + "  format: messages        # conversations of role and content, through the chat template\n"
    elif {"instruction", "output"} <= set(columns):
        body = data + "  format: alpaca          # instruction, input, output\n"
    else:
        body = data + _features(table)
    return head + body + _rest(len(table))


def _plain_text(dataset: str) -> str:
    """Continued pretraining on text files."""
    return f"""
dataset:
  path: {_quoted(dataset)}
  # document_separator: "\\n\\n"   # what stands between documents; without it each file is one

preprocessing:
  split:
    type: random
    probabilities: [0.98, 0.01, 0.01]   # training, validation, test

trainer:
  type: pretrain            # loss on every token
  epochs: 1
  # learning_rate: 2e-5     # auto: 2e-5, or 2e-4 with an adapter
"""


def _first(cells: Sequence[Any]) -> Any:
    return next((cell for cell in cells if cell is not None), None)


def _features(table: Table) -> str:
    reading, writing = guess(table)
    others = [name for name in table.columns if name not in (reading, writing, "split")]
    also = f"   # other columns: {_one_line(', '.join(others))}" if others else ""
    return f"""
input_features:
  - name: {_quoted(reading)}{also}
    type: text

output_features:
  - name: {_quoted(writing)}
    type: text

prompt:
  # What the model reads; any column can stand in braces.
  template: {_quoted("{" + (reading if _nameable(reading) else "__sample__") + "}" + chr(10))}
  use_chat_template: false  # true sends it as a user's turn through the chat template of the base model
"""


def _one_line(text: str) -> str:
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())


def _quoted(text: str) -> str:
    """A text as YAML's double-quoted scalar."""
    written: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9)
    return written.strip()


def _nameable(column: str) -> bool:
    """Whether a template can name the column."""
    try:
        return placeholders("{" + column + "}") == [(column, "")] and not column.startswith("__")
    except ValueError:
        return False


def guess(table: Table) -> tuple[str, str]:
    """(column to read, column to write): by name, else the longer text is read.

    Raises:
        DataError: there are no two columns.
    """
    names = [name for name in table.columns if name != "split"]
    if len(names) < 2:
        raise DataError(
            f"{table.origins[0].name}: needs at least two columns, one to read and one to write; it has {', '.join(table.columns)}"
        )
    size = {name: sum(len(as_text(cell)) for cell in table.columns[name][:_SEEN]) for name in names}
    writing = _by_name(names, _WRITE) or min(names, key=lambda name: size[name])
    rest = [name for name in names if name != writing]
    reading = _by_name(rest, _READ) or max(rest, key=lambda name: size[name])
    return reading, writing


def _by_name(names: list[str], known: tuple[str, ...]) -> str | None:
    return next((name for word in known for name in names if name.lower() == word), None)


def _rest(rows: int) -> str:
    split = "[0.8, 0.1, 0.1]" if rows >= 100 else "[0.7, 0.15, 0.15]"
    return f"""
preprocessing:
  split:
    type: random
    probabilities: {split}   # training, validation, test

adapter: lora               # trains a small adapter; remove this line to train all weights

trainer:
  type: finetune
  epochs: 3
  # learning_rate: 2e-4     # auto: 2e-4 with an adapter, 2e-5 without
  # effective_batch_size: 16   # auto goes by memory and by the number of rows

generation:
  do_sample: false          # true samples, with temperature and top_p
"""
