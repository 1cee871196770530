"""Chat templates: the same text and ids as transformers, exact spans, and nothing a template may break out with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fettle.data.encode import encode_prompts, encode_rows
from fettle.errors import DataError, MissingFileError, ModelError
from fettle.prompt.chat import ChatTemplate, named_template
from fettle.prompt.render import Renderer
from fettle.rows import Row
from fettle.tokenizer import read_tokenizer
from tests.conftest import CHATML, POCKET, byte_level, save_tokenizer

Turns = list[dict[str, Any]]
MARKED = named_template("chatml", Path())
PLAIN = named_template("plain", Path())
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
TRIMMED = CHATML.replace("message['content']", "message['content'] | trim")
JSONS = (
    "{% for m in messages %}{{ m | tojson(separators=(',', ':'), sort_keys=True) }}"
    "{{ [1, {'ü': 2}] | tojson(indent=2) }}"
    "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}{{ documents is none }}{{ tools is none }}{{ bos_token is defined }}"
)
ONE: Turns = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "2, I think. 🙂"}]
MANY: Turns = [
    {"role": "system", "content": "Be brief."},
    *ONE,
    {"role": "user", "content": "Sure?\n\nReally?"},
    {"role": "assistant", "content": "Yes.\n"},
]


def tokenizer_with(folder: Path, template: str) -> Path:
    return save_tokenizer(
        folder, byte_level(["<|end|>", "<|im_start|>", "<|im_end|>", "<s>"]), eos_token="<|end|>", bos_token="<s>", chat_template=template
    )  # fmt: skip


def chat(template: str, bos: str | None = "<s>", eos: str | None = "<|end|>") -> ChatTemplate:
    return ChatTemplate(template, bos, eos)


def said(template: ChatTemplate, messages: Turns) -> list[str]:
    text, spans = template.spans(messages)
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize("template", [CHATML, MARKED, PLAIN, TRIMMED, LLAMA2, JSONS])
@pytest.mark.parametrize("messages", [ONE, ONE[:1], MANY, MANY[1:], [*MANY, {"role": "user", "content": ""}]])
@pytest.mark.parametrize("prompt", [False, True])
def test_text_and_ids_are_those_of_transformers(tmp_path: Path, template: str, messages: Turns, prompt: bool) -> None:
    if template is LLAMA2 and messages[0]["role"] == "system":
        messages = messages[1:]
    folder = tokenizer_with(tmp_path, template)
    theirs = AutoTokenizer.from_pretrained(folder)
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    ours = read_tokenizer(folder)
    assert chat(template).render(messages, prompt)[0] == text
    if prompt and messages[-1]["role"] == "user":
        renderer = Renderer(None, None, None, False, chat(template))
        [ids] = encode_prompts([renderer.prompt(Row({}, messages=tuple(messages)))], ours)
        assert ids == theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


@pytest.mark.parametrize("messages", [ONE, MANY])
def test_pocket_ids_and_mask_are_those_of_transformers(messages: Turns) -> None:
    theirs = AutoTokenizer.from_pretrained(POCKET).apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = read_tokenizer(POCKET)
    renderer = Renderer(None, None, None, False, ChatTemplate(str(ours.chat_template), ours.bos, ours.eos))
    [row] = encode_rows([renderer.finished(Row({}, messages=tuple(messages)))], ours)
    assert row.ids == theirs["input_ids"]
    assert row.trained == [bool(one) for one in theirs["assistant_masks"]]


@pytest.mark.parametrize("template", [MARKED, PLAIN])
@pytest.mark.parametrize("messages", [ONE, MANY])
def test_mask_is_that_of_transformers(tmp_path: Path, template: str, messages: Turns) -> None:
    folder = tokenizer_with(tmp_path, template)
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    renderer = Renderer(None, None, None, False, chat(template))
    [row] = encode_rows([renderer.finished(Row({}, messages=tuple(messages)))], read_tokenizer(folder))
    assert row.ids == theirs["input_ids"]
    assert row.trained == [bool(one) for one in theirs["assistant_masks"]]


def test_spans_of_every_turn() -> None:
    assert said(chat(MARKED), MANY) == ["2, I think. 🙂<|im_end|>", "Yes.\n<|im_end|>"]
    assert said(chat(PLAIN), MANY) == [" 2, I think. 🙂<|end|>", " Yes.\n<|end|>"]
    assert said(chat(LLAMA2), MANY[1:]) == [" 2, I think. 🙂 <|end|>", " Yes. <|end|>"]


@pytest.mark.parametrize("eos", ["<|im_end|>", "<|end|>", None])
def test_a_measured_span_ends_with_the_end_of_turn(eos: str | None) -> None:
    """Also where the template closes turns with another token than the tokenizer's end-of-text."""
    assert said(chat(CHATML, eos=eos), MANY) == ["2, I think. 🙂<|im_end|>", "Yes.\n<|im_end|>"]


def test_a_template_without_end_of_turn_keeps_its_newline() -> None:
    bare = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    assert said(chat(bare, eos=None), ONE) == ["2, I think. 🙂\n"]


def test_conversation_that_starts_with_the_assistant() -> None:
    assert said(chat(CHATML), [ONE[1], *ONE]) == ["2, I think. 🙂<|im_end|>"] * 2


def test_an_empty_answer_is_marked_as_well() -> None:
    empty = {"role": "assistant", "content": ""}
    assert said(chat(MARKED), [ONE[0], empty, *ONE]) == ["<|im_end|>", "2, I think. 🙂<|im_end|>"]
    around = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}|{% endfor %}"
    )
    assert said(chat(around), [ONE[0], empty, *ONE]) == ["", "2, I think. 🙂"]


REWRITES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_rewrites_earlier_turns_is_refused_not_guessed() -> None:
    thought = {"role": "assistant", "content": "<think>hm</think>2"}
    with pytest.raises(DataError, match="rewrites earlier turns"):
        chat(REWRITES).spans([ONE[0], thought, *ONE])
    assert said(chat(REWRITES), [ONE[0], thought]) == ["<think>hm</think>2<|im_end|>"]
    assert chat(REWRITES).prompt([ONE[0], thought, ONE[0]])[1] == []


def test_a_generation_prompt_that_no_answer_starts_with_is_refused() -> None:
    thinks = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    with pytest.raises(DataError, match="starts answers otherwise than its generation prompt"):
        chat(thinks).spans(ONE)


def test_some_turns_marked_only() -> None:
    last = (
        "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(DataError, match="marks 1 of 2 assistant turns"):
        chat(last).spans(MANY)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append({'role': 'user'}) }}",
        "{{ messages[0].update({'content': 'x'}) }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ range(10 ** 9) | list }}",
        "{{ 1 / 0 }}",
        "{{ messages[0]['content'].index('zzz') }}",
        "{{ messages[7].content }}",
        "{{ messages[0].content + 3 }}",
        "{{ raise_exception('no') }}",
        "{{ namespace(x) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 10 ** 30 }}",
        "{{ undefined_thing.attribute }}",
        "{% include 'x' %}",
    ],
)
def test_a_template_that_breaks_out_or_down_is_a_plain_error(template: str) -> None:
    messages = [dict(ONE[0])]
    with pytest.raises(DataError, match="the chat template refuses this conversation"):
        chat(template).render(messages, prompt=False)
    assert messages == ONE[:1]


@pytest.mark.parametrize(
    "template", ["{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(messages) }}", "{{ ''.__class__ }}"]
)
def test_hidden_attributes_are_empty(template: str) -> None:
    assert chat(template).render(ONE, prompt=False)[0] == ""


@pytest.mark.parametrize("template", ["{% if %}", "{{ x", "{{ x | nofilter }}", "{% generation %}", "{% endfor %}"])
def test_a_template_that_does_not_parse(template: str) -> None:
    with pytest.raises(ModelError, match="the chat template has a fault in line 1"):
        chat(template).render(ONE, prompt=False)


def test_plain_works_without_any_special_token() -> None:
    assert chat(PLAIN, None, None).render(MANY, prompt=False)[0] == (
        "System: Be brief.\nUser: What is 1 + 1?\nAssistant: 2, I think. 🙂\nUser: Sure?\n\nReally?\nAssistant: Yes.\n\n"
    )
    assert chat(PLAIN).render(ONE[:1], prompt=True)[0] == "<s>User: What is 1 + 1?\nAssistant:"


def test_named_templates(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }} ü")
    assert named_template("mine.jinja", tmp_path) == "{{ messages[0].content }} ü"
    for name in ("other", "", "{{ x }}\n" * 2000):
        with pytest.raises(MissingFileError, match="neither chatml nor plain nor a file"):
            named_template(name, tmp_path)
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path / 'latin.jinja'} cannot be read")):
        named_template("latin.jinja", tmp_path)


def test_json_filter_writes_plain_json() -> None:
    text, _ = chat("{{ messages[0] | tojson }}").render([{"role": "user", "content": "ü<>&'"}], prompt=False)
    assert json.loads(text) == {"role": "user", "content": "ü<>&'"}
    assert "ü<>&'" in text
