"""The `prompt` section: how the columns of a row become what the model reads."""

from __future__ import annotations

import re
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field

from fettle.section import Section


class Retrieval(Section):
    """Rows of the training set shown beside the sample (few-shot)."""

    type: Literal["random", "semantic"] | None = None
    """`random` or `semantic`; null shows none."""
    index_name: str | None = None
    """Name of a saved index; null builds one from the training set."""
    model_name: str | None = None
    """Sentence encoder of the semantic index: a name or a local folder."""
    k: Annotated[int, Field(ge=0)] = 0
    """Number of rows shown; 0 means 1 when a type is set."""


class Prompt(Section):
    """How the columns of a row become what the model reads."""

    template: str | None = None
    """Text with `{column}` placeholders; `{__sample__}`, `{__task__}` and `{__context__}` are reserved. `{score:.2f}` formats a number."""
    task: str | None = None
    """Instruction put in place of `{__task__}`; without a template, a default template carries it."""
    retrieval: Retrieval = Retrieval()
    """Rows of the training set shown beside the sample."""
    use_chat_template: Literal["auto"] | bool = "auto"
    """Send the rendered prompt as a user turn through the chat template. `auto`: for messages always, for Alpaca rows when the
    tokenizer has one, else never."""
    chat_template: str | None = None
    """Chat template to use instead of the tokenizer's: `chatml`, `plain`, or a Jinja file."""
    system: str | None = None
    """System message put before conversations that have none."""


RESERVED = ("__sample__", "__task__", "__context__")


def placeholders(template: str) -> list[tuple[str, str]]:
    """The (column, format spec) pairs of a template, in order.

    A placeholder can name a column and nothing else: no attributes, no items, no conversions; its format spec may only
    ask for a fixed-point number of sane width (`.2f`).

    Raises:
        ValueError: the template breaks these rules; the message shows the placeholder.
    """
    found = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        shown = "{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
        if not name:
            raise ValueError("the template has an empty placeholder {}; name a column, or write {{}} for braces")
        if conversion or any(mark in name for mark in ".[]"):
            raise ValueError(f"the placeholder {shown} may only name a column")
        if spec and not re.fullmatch(r"[+ ]?(0?[0-9]{1,2})?,?(\.[0-9]{1,2})?f", spec):
            raise ValueError(f"the placeholder {shown} has a format other than a number's, such as {{{name}:.2f}}")
        found.append((name, spec or ""))
    return found
