"""Chat templates: conversations to text, with the exact spans of every assistant turn.

Templates run in Jinja's sandbox with the helpers that transformers offers them. A span comes from the template's own
`{% generation %}` markers; a template without them is measured instead: an assistant turn is what its rendering adds to
the rendering of the turns before it plus the generation prompt. Nothing is ever searched for in the text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from fettle.errors import DataError, MissingFileError, ModelError

Message = dict[str, Any]
# What a template that runs can run into.
_FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
NAMED = ("chatml", "plain")


class _Marked(str):
    """Text that came out of a `{% generation %}` block."""

    __slots__ = ()


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`: marks what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012 -- Jinja's own class attribute

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return _Marked(caller())


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=32)
def _compile(template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(f"the chat template has a fault in line {error.lineno}: {error.message}") from None


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the special tokens it may name."""

    source: str
    bos: str | None
    eos: str | None

    def render(self, messages: Sequence[Message], prompt: bool) -> tuple[str, list[tuple[int, int]]]:
        """Text of a conversation and the (from, to) characters of its generation blocks.

        Args:
            prompt: end with the words that start an assistant turn.

        Raises:
            DataError: the template refuses the conversation.
        """
        template = _compile(self.source)
        tokens = {"bos_token": self.bos, "eos_token": self.eos}
        named = {name: token for name, token in tokens.items() if token is not None}
        text, spans = "", []
        try:
            context = template.new_context(
                {"messages": list(messages), "add_generation_prompt": prompt, "tools": None, "documents": None, **named}
            )
            chunks = [
                str.__str__(chunk) if not isinstance(chunk, _Marked) else chunk
                for chunk in template.root_render_func(context)
            ]
        except (jinja2.TemplateError, *_FAULTS) as error:
            raise DataError(f"the chat template refuses this conversation: {error}") from None
        pieces = []
        position = 0
        for chunk in chunks:
            if isinstance(chunk, _Marked):
                spans.append((position, position + len(chunk)))
            pieces.append(chunk)
            position += len(chunk)
        text = "".join(pieces)
        return text, spans

    def spans(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """Text of a finished conversation and the characters of every assistant turn, end-of-turn token included.

        Raises:
            DataError: the spans cannot be told (the template rewrites earlier turns and has no generation markers).
        """
        text, marked = self.render(messages, prompt=False)
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if len(marked) == len(turns):
            return text, marked
        if marked:
            raise DataError(
                f"the chat template marks {len(marked)} of {len(turns)} assistant turns with generation blocks"
            )
        return text, [self._measure(messages, index, text) for index in turns]

    def _measure(self, messages: Sequence[Message], index: int, text: str) -> tuple[int, int]:
        before, _ = self.render(messages[:index], prompt=True)
        until, _ = self.render(messages[: index + 1], prompt=False)
        if not (text.startswith(until) and until.startswith(before)):
            raise DataError(
                "cannot tell where an assistant turn lies: this chat template rewrites earlier turns, or starts answers otherwise "
                "than its generation prompt; give one with {% generation %} markers as prompt.chat_template"
            )
        written = until[len(before) :]
        closed = written.rstrip()
        if self.eos and self.eos in written:  # what follows the stop token is never written by the model
            written = written[: written.rindex(self.eos) + len(self.eos)]
        elif not closed.endswith(str(messages[index]["content"]).rstrip()):  # nor what follows another mark of the end
            written = closed
        return len(before), len(before) + len(written)

    def prompt(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """Text that asks for an answer, and the characters of the assistant turns before it.

        Raises:
            DataError: the template refuses the conversation.
        """
        text, marked = self.render(messages, prompt=True)
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if marked or not turns:
            return text, marked
        try:
            return text, [self._measure(messages, index, text) for index in turns]
        except DataError:  # such a template cannot be trained with; it can be asked
            return text, []


def named_template(name: str, folder: Path) -> str:
    """Source of a template that comes with Fettle, or of a Jinja file beside the YAML or in the working folder.

    Raises:
        MissingFileError: it is neither.
    """
    if name in NAMED:
        return (resources.files("fettle.prompt") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    for path in (folder / name, Path(name)):
        if os.path.isfile(path):  # unlike Path.is_file, also for a name too long for the system
            try:
                return path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError) as error:
                raise ModelError(f"prompt.chat_template: {path} cannot be read: {error}") from None
    raise MissingFileError(f"prompt.chat_template: {name!r} is neither {' nor '.join(NAMED)} nor a file")
