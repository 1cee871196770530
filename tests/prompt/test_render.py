"""From a row to text: templates reach columns and nothing else, and every format has its own words."""

from __future__ import annotations

from typing import Any

import pytest

from fettle.errors import DataError
from fettle.prompt.config import Prompt, placeholders
from fettle.prompt.render import ALPACA, ALPACA_WITH_INPUT, Renderer, columns_named, fill, reads_sample, renderer
from fettle.rows import Row
from tests.conftest import CHATML


def made(row_format: str = "columns", chat: str | None = None, **keys: Any) -> Renderer:
    return renderer(Prompt(**keys), row_format, chat, None, "<|im_end|>")


def asked(one: Renderer, columns: dict[str, Any], sample: str = "S") -> str:
    return one.prompt(Row(columns, sample, "R")).text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{a}-{b}-{a}", "x-7-x"),
        ("{__sample__}!", "S!"),
        ("{__task__}: {a}", "T: x"),
        ("{{a}} {a} {{{b}}}", "{a} x {7}"),
        ("{n:.2f} {n:08.1f} {n:+f} {n:,.1f} {text:.1f}", "1234.50 001234.5 +1234.500000 1,234.5 2.5"),
        ("{none}|", "|"),
        ("{list} {flag} {dict}", '["ü", 1] true {"k": null}'),
        ("ünï 🙂\u2028 {quoted}", 'ünï 🙂\u2028 "said" \\n ü'),
        ("{odd name} {ä}", "o u"),
    ],
)
def test_templates(template: str, text: str) -> None:
    columns = {
        "a": "x", "b": 7, "n": 1234.5, "text": "2.5", "none": None, "list": ["ü", 1], "flag": True, "dict": {"k": None},
        "quoted": '"said" \\n ü', "odd name": "o", "ä": "u",
    }  # fmt: skip
    assert fill(template, columns, "S", "T") == text


@pytest.mark.parametrize("cell", ["many", None, [1], {}, 10**400])
def test_a_cell_that_is_no_number(cell: object) -> None:
    with pytest.raises(DataError, match=r"column 'a' holds .* no number to write as \{a:\.2f\}"):
        fill("{a:.2f}", {"a": cell}, "", "")


@pytest.mark.parametrize("spec", ["99999f", ".999f", "f" * 9, "d", "s", "<9", "*>9.2f", "{b}", "٣f", "1_000f", "%"])
def test_format_specs_other_than_a_sane_number(spec: str) -> None:
    with pytest.raises(ValueError, match=r"has a format other than a number's|Single|expected '}'"):
        placeholders("{a:" + spec + "}")


@pytest.mark.parametrize("spec", ["f", ".2f", "8.3f", "08f", "+.1f", " f", ",f", ",.2f", "+012,.99f"])
def test_format_specs_that_python_takes(spec: str) -> None:
    assert placeholders("{a:" + spec + "}") == [("a", spec)]
    assert fill("{a:" + spec + "}", {"a": 1.5}, "", "") == format(1.5, spec)


def test_a_cell_is_never_a_template() -> None:
    assert (
        fill("{a} {b}", {"a": "{b} {__task__} {0.__class__}", "b": "%s"}, "", "T") == "{b} {__task__} {0.__class__} %s"
    )


def test_without_template_the_column_is_the_prompt() -> None:
    assert asked(made(), {"a": "x"}) == "S"


def test_default_zero_shot() -> None:
    text = asked(made(task="Translate."), {}, "Grüße")
    assert text == "SAMPLE INPUT: Grüße\n\nUSER: Complete the following task: Translate.\n\nASSISTANT:"


def test_alpaca_with_and_without_input() -> None:
    one = made("alpaca")
    assert asked(one, {"instruction": "Do", "input": "this"}) == ALPACA_WITH_INPUT.format(
        instruction="Do", input="this"
    )
    for row in ({"instruction": "Do", "input": ""}, {"instruction": "Do", "input": None}, {"instruction": "Do"}):
        assert asked(one, row) == ALPACA.format(instruction="Do")


def test_alpaca_through_a_chat_template() -> None:
    one = made("alpaca", CHATML)
    assert (
        asked(one, {"instruction": "Do", "input": ["this"]})
        == '<|im_start|>user\nDo\n\n["this"]<|im_end|>\n<|im_start|>assistant\n'
    )
    assert asked(one, {"instruction": "Do", "input": ""}) == "<|im_start|>user\nDo<|im_end|>\n<|im_start|>assistant\n"
    assert asked(made("alpaca", CHATML, use_chat_template=False), {"instruction": "Do"}) == ALPACA.format(
        instruction="Do"
    )


def test_columns_through_a_chat_template() -> None:
    one = made("columns", CHATML, use_chat_template=True, template="<{a}>", system="Brief.")
    row = Row({"a": "x"}, "S", "R")
    assert one.prompt(row).text == (
        "<|im_start|>system\nBrief.<|im_end|>\n<|im_start|>user\n<x><|im_end|>\n<|im_start|>assistant\n"
    )
    assert one.finished(row).pieces == ((one.prompt(row).text, False), ("R<|im_end|>", True), ("\n", False))


def test_a_conversations_own_system_message_stays() -> None:
    one = made("messages", CHATML, system="Mine.")
    own = ({"role": "system", "content": "Own."}, {"role": "user", "content": "x"})
    assert one.prompt(Row({}, messages=own)).text.startswith("<|im_start|>system\nOwn.<|im_end|>\n<|im_start|>user")
    assert one.prompt(Row({}, messages=own[1:])).text.startswith(
        "<|im_start|>system\nMine.<|im_end|>\n<|im_start|>user"
    )


def test_the_last_answer_is_not_shown_in_the_prompt() -> None:
    one = made("messages", CHATML)
    row = Row({}, messages=({"role": "user", "content": "x"}, {"role": "assistant", "content": "SECRET"}))
    assert "SECRET" not in one.prompt(row).text
    assert one.response(row) == "SECRET"
    assert one.response(Row({}, messages=row.messages[:1])) is None


@pytest.mark.parametrize(
    ("row_format", "chat", "keys", "said"),
    [
        ("messages", None, {}, "the tokenizer has no chat template; set prompt.chat_template: plain"),
        ("columns", None, {"use_chat_template": True}, "the tokenizer has no chat template"),
        ("columns", CHATML, {"system": "x"}, "prompt.system needs a chat template"),
        ("messages", CHATML, {"template": "{a}"}, "prompt.template has no effect on conversations"),
        ("messages", CHATML, {"task": "x"}, "prompt.task has no effect on conversations"),
    ],
)
def test_what_does_not_go_together(row_format: str, chat: str | None, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        made(row_format, chat, **keys)


def test_named_columns() -> None:
    section = Prompt(template="{a} {__sample__} {b:.1f} {__task__}")
    assert columns_named(section) == ["a", "b"]
    assert reads_sample(section)
    assert not reads_sample(Prompt(template="{a}"))
    assert reads_sample(Prompt(task="x"))
