"""The job of speed.py: a 30M-parameter Llama with random weights, and 2,000 rows of made-up words.

Rows have log-normal lengths of 20 to 400 tokens (median 90), about 70 % of them prompt. Deterministic.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 20480
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
END = SPECIAL.index("</s>")
ROWS_PER_STEP = 16


@dataclass(frozen=True)
class Row:
    prompt: str
    completion: str

    @property
    def tokens(self) -> int:
        """Tokens with the end token that closes a completion."""
        return len(self.prompt.split()) + len(self.completion.split()) + 1


def write_job(folder: Path, rows: int = 2000) -> None:
    """Write `folder/model` (weights and tokenizer) and `folder/data/train_pc.jsonl`."""
    _write_model(folder / "model")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(vars(row)) for row in make_rows(rows)]
    (data / "train_pc.jsonl").write_text("\n".join(lines) + "\n")


def _write_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {word: index for index, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(VOCABULARY - len(SPECIAL)))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def make_rows(count: int) -> list[Row]:
    """Rows of words whose frequencies follow Zipf's law."""
    draw = random.Random(0)
    names = [f"w{n}" for n in range(VOCABULARY - len(SPECIAL))]
    cumulative = list(accumulate(1 / (rank + 3) for rank in range(len(names))))

    def words(number: int) -> str:
        return " ".join(draw.choices(names, cum_weights=cumulative, k=number))

    rows = []
    while len(rows) < count:
        length = round(math.exp(draw.gauss(math.log(90), 0.75)))
        if 20 <= length <= 400:
            prompt = max(4, round(length * min(0.95, max(0.3, draw.gauss(0.70, 0.12)))))
            rows.append(Row(words(prompt), " " + words(max(2, length - prompt - 1))))
    return rows


def read_rows(folder: Path, count: int) -> list[Row]:
    """The first rows of a job."""
    with (folder / "data" / "train_pc.jsonl").open() as lines:
        return [Row(**json.loads(line)) for line, _ in zip(lines, range(count), strict=False)]
