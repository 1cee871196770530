"""Ids are those of transformers; broken and missing tokenizers are told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fettle.errors import ModelError
from fettle.tokenizer import read_tokenizer
from tests.conftest import CHATML, LINES, TOKENIZERS, byte_level, llama_like, save_tokenizer

TEXTS = [
    *LINES[:5],
    "",
    " ",
    "  two  spaces ",
    "\n\n\n",
    "a\tb",
    "<s>",
    "x</s>y <|im_end|> z<|end|>",
    "▁x",
    "'s I'm",
    "1234567",
    "\u200b",
    "é🙂",
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_those_of_transformers(tokenizers: dict[str, Path], name: str) -> None:
    theirs = AutoTokenizer.from_pretrained(tokenizers[name])
    ours = read_tokenizer(tokenizers[name])
    assert ours.encode(TEXTS, special=True) == [theirs.encode(text) for text in TEXTS]
    assert ours.encode(TEXTS, special=False) == [theirs.encode(text, add_special_tokens=False) for text in TEXTS]
    assert (ours.bos_id, ours.eos_id, ours.size) == (theirs.bos_token_id, theirs.eos_token_id, len(theirs))
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"additional_special_tokens": ["fox"]},
        {"extra_special_tokens": ["fox"]},
        {"extra_special_tokens": {"animal_token": "fox"}},
        {"added_tokens_decoder": {"0": {"content": "<|end|>", "special": True}}},
        {
            "eos_token": {
                "content": "<|end|>",
                "__type": "AddedToken",
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
            }
        },
        {"add_bos_token": True, "bos_token": "<|im_start|>"},
        {"add_eos_token": True},
    ],
)
def test_settings_that_change_ids(tmp_path: Path, settings: dict[str, Any]) -> None:
    made = byte_level(["<|end|>", "<|im_start|>", "<|im_end|>", "fox"])
    folder = save_tokenizer(tmp_path, made, **{"eos_token": "<|end|>", **settings})
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = read_tokenizer(folder)
    assert ours.encode(TEXTS, special=True) == [theirs.encode(text) for text in TEXTS]
    assert ours.encode(TEXTS, special=False) == [theirs.encode(text, add_special_tokens=False) for text in TEXTS]


def test_llama_class(tmp_path: Path) -> None:
    """transformers 5 rebuilds this class: no space before a leading space or after a special token, unlike tokenizer.json."""
    folder = save_tokenizer(tmp_path, llama_like(), tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="</s>")
    theirs = AutoTokenizer.from_pretrained(folder)
    texts = [text for text in TEXTS if not text.startswith((" ", "▁")) and "<" not in text]
    assert read_tokenizer(folder).encode(texts, special=True) == [theirs.encode(text) for text in texts]


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path) -> None:
    made = byte_level([])
    made.enable_padding(length=64)
    made.enable_truncation(4)
    ours = read_tokenizer(save_tokenizer(tmp_path, made))
    ids = ours.encode(["The quick brown fox jumps over", "x"], special=True)
    assert ours.decode(ids[0]) == "The quick brown fox jumps over"
    assert len(ids[1]) == 1


def test_special_tokens_from_the_map(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(tokenizers["byte"] / "tokenizer.json", tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "<|end|>"}, "pad_token": "<|none|>"})
    )
    ours = read_tokenizer(tmp_path)
    assert (ours.eos, ours.bos, ours.pad, ours.padding_id) == ("<|end|>", None, None, ours.eos_id)


def test_chat_template_places(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(tokenizers["byte"] / "tokenizer.json", tmp_path)
    about = tmp_path / "tokenizer_config.json"
    about.write_text(
        json.dumps({"chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]})
    )
    assert read_tokenizer(tmp_path).chat_template == "D"
    about.write_text(json.dumps({"chat_template": "C"}))
    assert read_tokenizer(tmp_path).chat_template == "C"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert read_tokenizer(tmp_path).chat_template == "J"
    assert read_tokenizer(tokenizers["byte"]).chat_template == CHATML


def test_offsets_cover_the_text(tokenizers: dict[str, Path]) -> None:
    ours = read_tokenizer(tokenizers["byte"])
    [(ids, offsets)] = ours.encode_with_offsets(["naïve café<|im_end|>"])
    assert ids == ours.encode(["naïve café<|im_end|>"], special=False)[0]
    assert offsets[0][0] == 0
    assert offsets[-1] == (10, 20)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no tokenizer here"),
        ({"tokenizer.model": "x"}, "has no tokenizer.json. Write one with"),
        ({"tokenizer.json": "{}"}, "not a tokenizer that can be read"),
        ({"tokenizer.json": "not json"}, "not a tokenizer that can be read"),
        ({"tokenizer_config.json": "{", "tokenizer.json": None}, "not valid JSON"),
        ({"tokenizer_config.json": "[]", "tokenizer.json": None}, "expected an object of settings"),
        (
            {"tokenizer_config.json": '{"eos_token": "<none>"}', "tokenizer.json": None},
            "the eos_token '<none>' of tokenizer_config.json is not in",
        ),
    ],
)
def test_broken_tokenizers(
    tokenizers: dict[str, Path], tmp_path: Path, files: dict[str, str | None], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text((tokenizers["byte"] / name).read_text() if text is None else text)
    with pytest.raises(ModelError, match=said.replace(".", r"\.")):
        read_tokenizer(tmp_path)
