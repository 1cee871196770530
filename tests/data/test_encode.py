"""Ids and what carries loss: exact, for every tokenizer, and the same at prediction as in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fettle.data.encode import Limits, encode_prompts, encode_rows
from fettle.prompt.chat import ChatTemplate, named_template
from fettle.prompt.render import Renderer
from fettle.rows import Rendered, Row
from fettle.tokenizer import Tokenizer, read_tokenizer
from tests.conftest import CHATML, TOKENIZERS

TEXTS = st.text(
    st.sampled_from("abc defAnswer:?!.,1234567890\n\t ünï好🙂▁—{}<>|") | st.characters(exclude_categories=["Cs", "Cc"]),
    max_size=40,
)
QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
pytestmark = pytest.mark.parametrize("name", TOKENIZERS)
_READ: dict[Path, Tokenizer] = {}


def read(tokenizers: dict[str, Path], name: str) -> Tokenizer:
    folder = tokenizers[name]
    if folder not in _READ:
        _READ[folder] = read_tokenizer(folder)
    return _READ[folder]


def apart(prompt: str, response: str) -> Rendered:
    return Rendered(((prompt, False), (response, True)), whole=False)


def chats(tokenizer: Tokenizer) -> list[Renderer]:
    """Renderers through chat templates that this tokenizer has the tokens for."""
    sources = [named_template("plain", Path())]
    if tokenizer.backend.token_to_id("<|im_end|>") is not None:
        sources += [CHATML, named_template("chatml", Path())]
    return [Renderer(None, None, None, False, ChatTemplate(source, tokenizer.bos, tokenizer.eos)) for source in sources]


def conversation(texts: list[str]) -> tuple[dict[str, Any], ...]:
    return tuple({"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts))


@QUIET
@given(prompt=TEXTS, response=TEXTS)
def test_prompt_at_prediction_is_a_prefix_of_the_training_ids(
    tokenizers: dict[str, Path], name: str, prompt: str, response: str
) -> None:
    tokenizer = read(tokenizers, name)
    [row] = encode_rows([apart(prompt, response)], tokenizer)
    [given_] = encode_prompts([Rendered(((prompt, False),), whole=False)], tokenizer)
    assert row.ids[: len(given_)] == given_
    assert row.trained == [False] * len(given_) + [True] * (len(row.ids) - len(given_))


@QUIET
@given(prompt=TEXTS, response=TEXTS)
def test_trained_tokens_are_the_response_and_one_stop(
    tokenizers: dict[str, Path], name: str, prompt: str, response: str
) -> None:
    tokenizer = read(tokenizers, name)
    [row] = encode_rows([apart(prompt, response)], tokenizer)
    learnt = [i for i, trained in zip(row.ids, row.trained, strict=True) if trained]
    if tokenizer.eos_id is not None:
        assert learnt.count(tokenizer.eos_id) == 1
        assert learnt.pop() == tokenizer.eos_id
    if "▁" not in response:
        assert tokenizer.decode(learnt, skip_special=False) == response


@QUIET
@given(texts=st.lists(TEXTS, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_conversations(tokenizers: dict[str, Path], name: str, texts: list[str]) -> None:
    tokenizer = read(tokenizers, name)
    for renderer in chats(tokenizer):
        row = Row({}, messages=conversation(texts))
        finished, asked = renderer.finished(row), renderer.prompt(row)
        [encoded] = encode_rows([finished], tokenizer)
        [prompt] = encode_prompts([asked], tokenizer)
        assert encoded.ids[: len(prompt)] == prompt
        assert not asked.text or finished.text.startswith(asked.text)
        learnt = [i for i, trained in zip(encoded.ids, encoded.trained, strict=True) if trained]
        spans = [piece for piece, trained in finished.pieces if trained]
        if "▁" not in "".join(texts) and name != "metaspace":
            assert tokenizer.decode(learnt, skip_special=False) == "".join(spans)
        if tokenizer.eos is not None and renderer.chat is not None and "eos_token" in renderer.chat.source:
            assert learnt.count(tokenizer.eos_id) == len(texts) // 2
        [first] = encode_rows([renderer.finished(Row({}, messages=conversation(texts[:2])))], tokenizer)
        assert any(first.trained)


@QUIET
@given(texts=st.lists(TEXTS.filter(str.strip), min_size=4, max_size=4))
def test_every_turns_prompt_is_a_prefix(tokenizers: dict[str, Path], name: str, texts: list[str]) -> None:
    tokenizer = read(tokenizers, name)
    for renderer in chats(tokenizer):
        [whole] = encode_rows([renderer.finished(Row({}, messages=conversation(texts)))], tokenizer)
        [prompt] = encode_prompts([renderer.prompt(Row({}, messages=conversation(texts[:3])))], tokenizer)
        assert whole.ids[: len(prompt)] == prompt
        assert whole.trained[len(prompt)] is True
        assert whole.trained[len(prompt) - 1] is False


def test_a_response_that_ends_with_the_stop_token_has_one(tokenizers: dict[str, Path], name: str) -> None:
    tokenizer = read(tokenizers, name)
    if tokenizer.eos is None:
        return
    [row] = encode_rows([apart("Q", f"yes{tokenizer.eos}")], tokenizer)
    assert row.ids.count(tokenizer.eos_id) == 1


def test_limits_of_the_parts(tokenizers: dict[str, Path], name: str) -> None:
    tokenizer = read(tokenizers, name)
    rows = [apart("A quick brown fox jumps", "over the lazy dog. 12345"), apart("A", "b")]
    free = encode_rows(rows, tokenizer)
    limits = Limits(input=3, output=4)
    cut = encode_rows(rows, tokenizer, limits)
    [prompt, _] = encode_prompts(rows, tokenizer, limits)
    assert cut[0].ids[:3] == free[0].ids[:3] == prompt
    assert cut[0].trained == [False] * 3 + [True] * 4
    assert cut[0].ids[-1] != tokenizer.eos_id
    assert cut[1] == free[1]


def test_the_prompt_is_never_closed(tokenizers: dict[str, Path], name: str) -> None:
    tokenizer = read(tokenizers, name)
    [prompt] = encode_prompts([Rendered((("Hello there", False),), whole=False)], tokenizer)
    assert tokenizer.eos_id not in prompt
    expected = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    assert prompt[: len(expected)] == expected
    assert tokenizer.decode(prompt) == "Hello there"


def test_rows_keep_their_order(tokenizers: dict[str, Path], name: str) -> None:
    tokenizer = read(tokenizers, name)
    whole = Rendered((("User: a\nAssistant:", False), (" b", True), ("\n", False)), whole=True)
    mixed = [apart("a", "b"), whole, apart("c", "d"), whole]
    assert encode_rows(mixed, tokenizer) == [encode_rows([one], tokenizer)[0] for one in mixed]
    assert encode_rows([], tokenizer) == []


def test_a_token_across_the_end_of_an_answer_is_cut(tokenizers: dict[str, Path], name: str) -> None:
    """Without a stop token "you." and the template's newline would be one token, half of it with loss."""
    if name != "bare":
        return
    tokenizer = read(tokenizers, name)
    text = "x|Thank you."
    assert tokenizer.encode([text], special=False)[0] != tokenizer.encode([text + "\n"], special=False)[0][:-1]
    [row] = encode_rows([Rendered((("x|", False), ("Thank you.", True), ("\n", False)), whole=True)], tokenizer)
    assert tokenizer.decode([i for i, trained in zip(row.ids, row.trained, strict=True) if trained]) == "Thank you."
    assert tokenizer.decode(row.ids) == text + "\n"
