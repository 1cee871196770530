"""The values that cross from room to room on a row's way from a file to the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


def as_text(cell: Any) -> str:
    """A cell as the model reads it: texts as they are, lists and objects as JSON, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, (dict, list, bool)) else str(cell)


@dataclass(frozen=True)
class Row:
    """One example in the canonical shape: a conversation, or columns to render and the response to write.

    `messages` is set for conversations; else `columns` holds what a template may name, `sample` the input's text and
    `response` the text to write (None when only a prediction is wanted).
    """

    columns: Mapping[str, Any]
    sample: str = ""
    response: str | None = None
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True)
class Rendered:
    """A row as text: pieces that carry loss (True) or do not.

    `whole` says how ids are made: of the whole text at once and cut at the pieces' borders by offsets (chat templates), or
    piece by piece (a prompt and its response), the first with what the tokenizer puts before a text, the last followed by
    the stop token. `document` marks plain text, which stands between separators and carries loss everywhere.
    """

    pieces: tuple[tuple[str, bool], ...]
    whole: bool
    document: bool = False

    @property
    def text(self) -> str:
        return "".join(piece for piece, _ in self.pieces)
