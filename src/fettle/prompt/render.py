"""One renderer for training, preview and prediction: a canonical row becomes text, with what carries loss marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from fettle.errors import DataError
from fettle.prompt.chat import ChatTemplate
from fettle.prompt.config import Prompt, placeholders
from fettle.rows import Message, Rendered, Row, as_text

ZERO_SHOT = "SAMPLE INPUT: {__sample__}\n\nUSER: Complete the following task: {__task__}\n\nASSISTANT:"

# Alpaca's own words (tatsu-lab/stanford_alpaca), which models tuned on such rows have seen.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
    "that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA_TURN = "{instruction}"
ALPACA_TURN_WITH_INPUT = "{instruction}\n\n{input}"


@dataclass(frozen=True)
class Renderer:
    """How the rows of one run become text.

    `template` is the user's (or the default for a task), `alpaca` says that rows have instruction and input, `chat` is the
    chat template, or None where prompt and response simply follow each other.
    """

    template: str | None
    task: str | None
    system: str | None
    alpaca: bool
    chat: ChatTemplate | None
    document: bool = False
    """Rows are plain text."""

    @property
    def glues(self) -> bool:
        """Whether nothing separates a prompt from its response."""
        return self.chat is None and self.template is None and not self.alpaca and not self.document

    def finished(self, row: Row) -> Rendered:
        """The whole row, responses marked.

        Raises:
            DataError: the row cannot be rendered.
        """
        if self.document:
            return Rendered(((row.sample, True),), whole=False, document=True)
        if self.chat is None:
            return Rendered(((self._prompt(row), False), (row.response or "", True)), whole=False)
        text, spans = self.chat.spans(self._conversation(row, finished=True))
        return Rendered(_pieces(text, spans), whole=True)

    def prompt(self, row: Row) -> Rendered:
        """What the model is given to write the (last) response.

        Raises:
            DataError: the row cannot be rendered.
        """
        if self.chat is None:
            return Rendered(((self._prompt(row), False),), whole=False, document=self.document)
        return Rendered(_pieces(*self.chat.prompt(self._conversation(row, finished=False))), whole=True)

    def response(self, row: Row) -> str | None:
        """The text that a prediction is compared with."""
        if row.messages is None:
            return row.response
        last = row.messages[-1]
        return str(last["content"]) if last["role"] == "assistant" else None

    def _prompt(self, row: Row) -> str:
        if row.messages is not None:
            raise DataError(
                "conversations need a chat template; set prompt.chat_template: plain (or chatml, or a Jinja file)"
            )
        if self.template is not None:
            return fill(self.template, row.columns, row.sample, self.task or "")
        if self.alpaca:
            given = bool(row.columns.get("input"))
            if self.chat is not None:
                return fill(ALPACA_TURN_WITH_INPUT if given else ALPACA_TURN, row.columns, row.sample, "")
            return fill(ALPACA_WITH_INPUT if given else ALPACA, row.columns, row.sample, "")
        return row.sample

    def _conversation(self, row: Row, finished: bool) -> list[Message]:
        if row.messages is not None:
            messages = list(row.messages)
            if not finished and messages[-1]["role"] == "assistant":
                messages = messages[:-1]
        else:
            messages = [{"role": "user", "content": self._prompt(row)}]
            if finished:
                messages.append({"role": "assistant", "content": row.response or ""})
        if self.system is not None and not (messages and messages[0]["role"] == "system"):
            messages.insert(0, {"role": "system", "content": self.system})
        return messages


def _pieces(text: str, spans: list[tuple[int, int]]) -> tuple[tuple[str, bool], ...]:
    pieces, position = [], 0
    for start, end in spans:
        pieces += [(text[position:start], False), (text[start:end], True)]
        position = end
    pieces.append((text[position:], False))
    return tuple((piece, trained) for piece, trained in pieces if piece)


def renderer(section: Prompt, row_format: str, chat_template: str | None, bos: str | None, eos: str | None) -> Renderer:
    """The renderer of a run.

    Args:
        row_format: `columns`, `alpaca`, `messages` or `text`.
        chat_template: source of the template to use, the tokenizer's or the user's; None where there is none.

    Raises:
        DataError: rows need a chat template and there is none.
    """
    if row_format == "text":
        return Renderer(None, None, None, False, None, document=True)
    wanted = section.use_chat_template
    chat = (
        wanted is True
        or row_format == "messages"
        or (wanted == "auto" and row_format == "alpaca" and chat_template is not None)
    )
    if wanted is False and row_format != "messages":
        chat = False
    if section.chat_template is not None and wanted != False:  # noqa: E712 -- `auto` is not False
        chat = True
    for name in ("template", "task"):
        if row_format == "messages" and getattr(section, name) is not None:
            raise DataError(f"prompt.{name} has no effect on conversations, which the chat template renders; remove it")
    if chat and chat_template is None:
        raise DataError(
            "the tokenizer has no chat template; set prompt.chat_template: plain (or chatml, or a Jinja file)"
        )
    if row_format == "messages" and (section.template is not None or section.task is not None):
        raise DataError(
            "prompt.template and prompt.task have no place in conversations, which the chat template renders; remove them"
        )
    if section.system is not None and not chat:
        raise DataError("prompt.system needs a chat template; set prompt.use_chat_template: true")
    if row_format == "alpaca" and section.task is not None and section.template is None:
        raise DataError(
            "prompt.task needs a prompt.template for Alpaca rows, such as '{__task__}\\n{instruction}\\n{input}\\n'"
        )
    template = section.template
    if template is None and section.task is not None:
        template = ZERO_SHOT
    return Renderer(
        template,
        section.task,
        section.system,
        row_format == "alpaca",
        ChatTemplate(str(chat_template), bos, eos) if chat else None,
    )


def columns_named(section: Prompt) -> list[str]:
    """The data columns that the template names."""
    if section.template is None:
        return []
    return [name for name, _ in placeholders(section.template) if not name.startswith("__")]


def reads_sample(section: Prompt) -> bool:
    """Whether the prompt shows the input feature's own text."""
    return section.template is None or any(name == "__sample__" for name, _ in placeholders(section.template))


def fill(template: str, columns: Mapping[str, Any], sample: str, task: str) -> str:
    """Put the cells of a row into a template; nothing but a column can be reached.

    Raises:
        DataError: a cell that should be formatted as a number is none.
    """
    reserved = {"__sample__": sample, "__task__": task}
    values = {}
    for name, spec in placeholders(template):
        cell = reserved.get(name, columns.get(name))
        if spec:
            try:
                values[name, spec] = format(float(cell), spec)  # type: ignore[arg-type]
            except (TypeError, ValueError, OverflowError):
                raise DataError(
                    f"column {name!r} holds {cell!r}, which is no number to write as {{{name}:{spec}}}"
                ) from None
        else:
            values[name, spec] = as_text(cell)
    return _put(template, values)


def _put(template: str, values: Mapping[tuple[str, str], str]) -> str:
    parts = []
    for text, name, spec, _ in Formatter().parse(template):
        parts.append(text)
        if name is not None:
            parts.append(values[name, spec or ""])
    return "".join(parts)
