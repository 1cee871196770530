"""Shared fixtures: tiny tokenizers and a tiny model, made here; no network, a cache of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from fettle.config import load
from fettle.errors import ConfigError

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LINES = [
    "The quick brown fox jumps over the lazy dog.",
    "Question: what is 12 + 30? Answer: 42",
    "user assistant system Assistant: User: System: hello there",
    "Straße, naïve café — 你好世界 🙂 and so on!\n\nThank you.\n",
    "<p>Some {json: [1, 2, 3]} text</p>\tand tabs",
] * 20
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
POCKET = Path(__file__).parent.parent / "src" / "fettle" / "model" / "pocket"
TOKENIZERS = ("byte", "metaspace", "bare", "closing", "pocket")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FETTLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def save_tokenizer(folder: Path, tokenizer: Tokenizer, **settings: Any) -> Path:
    """Write a tokenizer as a Hugging Face folder does."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def byte_level(special: list[str], regex: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def llama_like() -> Tokenizer:
    """What a converted SentencePiece model looks like: a space is put in front, unknown characters fall back to bytes."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    words.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=250, show_progress=False))
    learned = json.loads(words.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    for token in sorted(learned["vocab"], key=learned["vocab"].get):
        vocab.setdefault(token, len(vocab))
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tokenizers: byte-level, SentencePiece-like, without special tokens, closing every text, and pocket's."""
    base = tmp_path_factory.mktemp("tokenizers")
    chat = byte_level(["<|end|>", "<|im_start|>", "<|im_end|>"])
    closing = byte_level(["<s>", "</s>"])
    closing.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return {
        "byte": save_tokenizer(base / "byte", chat, eos_token="<|end|>", pad_token="<|end|>", chat_template=CHATML),
        "metaspace": save_tokenizer(
            base / "metaspace", llama_like(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        ),
        "bare": save_tokenizer(base / "bare", byte_level([], regex=False)),
        "closing": save_tokenizer(base / "closing", closing, bos_token="<s>", eos_token="</s>"),
        "pocket": POCKET,
    }


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Path:
    """A random Llama of a few thousand weights, with the byte-level tokenizer."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=423, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, eos_token_id=0, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizers["byte"] / name, folder / name)
    return folder


@pytest.fixture
def config() -> Callable[..., dict[str, Any]]:
    """A valid config of two columns; keys such as `trainer__epochs=2` change it."""
    return make_config


def make_config(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "model_type": "llm",
        "base_model": "fettle:pocket",
        "input_features": [{"name": "question", "type": "text"}],
        "output_features": [{"name": "answer", "type": "text"}],
        "trainer": {"type": "finetune"},
    }
    for path, value in changes.items():
        here: Any = data
        *parents, last = path.split("__")
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        here[last] = value
    return data


def faults(source: Any, *overrides: str) -> list[str]:
    """What is wrong with a config."""
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    return [str(fault) for fault in caught.value.faults]
