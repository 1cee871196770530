"""Compare language models on texts that none of them was made for: held-out bits per byte, beside two 5-gram models.

Bits per byte is what all tokens of a document cost, given its start, over the length of its UTF-8: it does not depend
on the vocabulary. The end of a document is not counted for any model. The 5-gram models, one over bytes and one over
the tokens of the first model, are trained on --train with interpolated modified Kneser-Ney smoothing (Stanley F. Chen
and Joshua Goodman, "An empirical study of smoothing techniques for language modeling", Computer Speech & Language 13,
1999, section 3).

Run: python recipes/pocket/compare.py --texts NEUTRAL.jsonl ... --train CORPUS.jsonl --models NAME=FOLDER ...
     [--limit-bytes N] [--out table.json]

A .jsonl file holds a document under `text` in each line, a .txt file a document in each line; each file is a column.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Symbols = Sequence[int] | Integers
Row = dict[str, Any]  # of the table
ORDER = 5
CHUNK = 1000  # documents encoded at once
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # where the counts of counts give none; the same as in KenLM


def discounts(counts: Integers) -> Floats:
    """What n-grams seen 0, 1, 2 and more times give away (Chen & Goodman 1999, equation 17).

    The estimates need n-grams seen once, twice, three and four times; where some are missing, as among the single bytes
    of a large text, or an estimate leaves its range, FALLBACK_DISCOUNTS take their place.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    found = list(FALLBACK_DISCOUNTS)
    if n[1:5].all():
        y = n[1] / (n[1] + 2 * n[2])
        estimates = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
        if all(0 < estimate <= k for k, estimate in enumerate(estimates, start=1)):
            found = estimates
    return np.array([0.0, *found])


@dataclass(frozen=True)
class Level:
    """The n-grams of one order: sorted keys (number of the context x symbols + last symbol), and what they weigh."""

    keys_G: Integers
    discounted_G: Floats  # (count - discount) / count of the context
    backoff_C: Floats  # share of the lower order, for each context


def level(keys_G: Integers, contexts_G: Integers, counts_G: Integers, size: int) -> Level:
    """Probabilities and back-off weights from the counts of one order."""
    discount_G = discounts(counts_G)[np.minimum(counts_G, 3)]
    totals_C = np.bincount(contexts_G, counts_G, size)
    freed_C = np.bincount(contexts_G, discount_G, size)
    backoff_C = np.divide(freed_C, totals_C, out=np.ones(size), where=totals_C > 0)
    return Level(keys_G, (counts_G - discount_G) / totals_C[contexts_G], backoff_C)


class KneserNey:
    """An n-gram model with interpolated modified Kneser-Ney smoothing (Chen & Goodman 1999, section 3).

    Symbols are 0 .. vocabulary - 1; the model adds the end of a document, which it predicts, and its beginning, which
    it does not. Below the highest order an n-gram counts as often as different symbols precede it, or, where it begins
    a document and nothing can, as often as it occurs (Kenneth Heafield et al., "Scalable modified Kneser-Ney language
    model estimation", ACL 2013, section 3.2). The lowest order is interpolated with the uniform distribution.

    An n-gram has a number in each order: its place among the sorted keys. A key is made of the number of the context in
    the order below, so that it fits into 64 bits whatever the order.
    """

    def __init__(self, documents: Iterable[Symbols], vocabulary: int, order: int = ORDER) -> None:
        self.end, self.begin, self.symbols = vocabulary, vocabulary + 1, vocabulary + 2
        text_T = np.concatenate([np.array([self.begin, *one, self.end], np.int32) for one in documents])
        ids_T = text_T  # number of the n-gram that ends here; -1: it would reach over the beginning
        keys, contexts = np.arange(self.symbols), np.zeros(self.symbols, np.int64)
        counts, size = np.bincount(text_T, minlength=self.symbols), 1
        counts[self.begin] = 0
        self.levels: list[Level] = []
        for _ in range(order - 1):
            at = np.flatnonzero((ids_T[:-1] >= 0) & (text_T[1:] != self.begin)) + 1
            found, places, occurrences = np.unique(
                ids_T[at - 1].astype(np.int64) * self.symbols + text_T[at], return_inverse=True, return_counts=True
            )
            suffixes = np.empty(len(found), np.int64)
            suffixes[places] = ids_T[at]
            preceded = np.bincount(suffixes, minlength=len(keys))
            self.levels.append(level(keys, contexts, np.where(preceded > 0, preceded, counts), size))
            keys, contexts, counts, size = found, found // self.symbols, occurrences, len(keys)
            ids_T = np.full(len(text_T), -1, np.int32)
            ids_T[at] = places
            if not len(found):  # every document is shorter
                return
        self.levels.append(level(keys, contexts, counts, size))

    @property
    def parameters(self) -> int:
        """Numbers that the model keeps: probabilities of n-grams and back-off weights of contexts."""
        return sum(len(one.discounted_G) + len(one.backoff_C) for one in self.levels)

    def probabilities(self, document: Symbols) -> Floats:
        """The probability of each symbol given all before it, from the beginning of the document."""
        text_T = np.array([self.begin, *document], np.int64)
        last_T, ids_T = text_T[1:], text_T
        lowest = self.levels[0]
        found_T: Floats = lowest.discounted_G[last_T] + lowest.backoff_C[0] / (self.symbols - 1)
        for one in self.levels[1:]:
            contexts_T = ids_T[:-1]
            keys_T = contexts_T * self.symbols + last_T  # below 0, so never found, after an unknown context
            places_T = np.minimum(np.searchsorted(one.keys_G, keys_T), len(one.keys_G) - 1)
            seen_T = one.keys_G[places_T] == keys_T
            found_T = found_T * np.where(contexts_T >= 0, one.backoff_C[contexts_T], 1.0)
            found_T += np.where(seen_T, one.discounted_G[places_T], 0.0)
            ids_T = np.concatenate([[-1], np.where(seen_T, places_T, -1)])
        return found_T

    def bits(self, document: Symbols) -> float:
        """What the symbols of a document cost, its end left out."""
        return float(-np.log2(self.probabilities(document)).sum())


def windows(inputs: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Windows over the inputs of a long document: begin, end, and the first input whose next token is scored.

    Neighbours share half the context; the last window ends with the document and is full, so that every token is
    scored once and, after the first window, sees at least half the context.
    """
    end = min(inputs, context)
    yield 0, end, 0
    while end < inputs:
        scored, end = end, min(inputs, end + context - context // 2)
        yield end - context, end, scored


def bits_of_tokens(logits_of: Callable[[torch.Tensor], torch.Tensor], ids: Sequence[int], context: int) -> float:
    """What all tokens but the first cost under a model that maps [1, T] ids to [1, T, V] logits."""
    ids_T, nats = torch.tensor(ids), 0.0
    if len(ids) < 2:
        return 0.0
    with torch.inference_mode():
        for begin, end, scored in windows(len(ids) - 1, context):
            logits_SV = logits_of(ids_T[None, begin:end])[0, scored - begin :].float()
            nats += float(torch.nn.functional.cross_entropy(logits_SV, ids_T[scored + 1 : end + 1], reduction="sum"))
    return nats / math.log(2)


def special_token(folder: Path, tokenizer: Tokenizer, *names: str) -> int | None:
    """The id of the first of these tokens (`bos_token`, ...) that the tokenizer's files name."""
    about: dict[str, Any] = {}
    for path in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        about |= json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    tokens = [about[name] for name in names if about.get(name)]
    ids = [tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token) for token in tokens]
    return next((found for found in ids if found is not None), None)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder; special tokens that a text spells out are read as text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer: Tokenizer, documents: Sequence[str]) -> Iterator[Integers]:
    """The ids of each document, no special tokens added."""
    for start in range(0, len(documents), CHUNK):
        for found in tokenizer.encode_batch(list(documents[start : start + CHUNK]), add_special_tokens=False):
            yield np.array(found.ids, np.int32)


class Transformer:
    """A causal language model of a Hugging Face folder, in float32.

    A document starts with the token the model saw before documents when it was trained: bos, or else eos. Without
    either the first token of the text has no context and costs as much as under the uniform distribution.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.start = special_token(folder, self.tokenizer, "bos_token", "eos_token")
        self.unknown = special_token(folder, self.tokenizer, "unk_token")
        self.unknown_seen = 0
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.model.eval()
        self.parameters = sum(one.numel() for one in self.model.parameters())  # tied ones count once

    def bits(self, document: str) -> float:
        """What the tokens of a document cost, its end left out."""
        ids: list[int] = next(encode(self.tokenizer, [document])).tolist()
        self.unknown_seen += sum(one == self.unknown for one in ids)
        config = self.model.config
        first = math.log2(config.vocab_size) if self.start is None else 0.0
        ids, context = ids if self.start is None else [self.start, *ids], config.max_position_embeddings
        return first + bits_of_tokens(lambda ids_1T: self.model(ids_1T, use_cache=False).logits, ids, context)


def read(path: Path) -> Iterator[str]:
    """The documents of a .jsonl (`text`) or .txt file (one in each line) that are not empty."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            text = json.loads(line)["text"] if path.suffix == ".jsonl" and line.strip() else line.rstrip("\r\n")
            if text.strip():
                yield text


def read_up_to(path: Path, limit: int) -> list[str]:
    """Whole documents from the start of a file, as long as they fit into so many bytes."""
    found: list[str] = []
    taken = 0
    for text in read(path):
        taken += len(text.encode())
        if taken > limit:
            break
        found.append(text)
    if not found:
        raise SystemExit(f"{path}: its first document does not fit into --limit-bytes {limit}, or it has none")
    return found


def score(name: str, parameters: int, bits: Callable[[str], float], texts: dict[str, list[str]]) -> Row:
    """The row of one model."""
    started = time.perf_counter()
    found = {column: sum(map(bits, some)) / len("".join(some).encode()) for column, some in texts.items()}
    print(f"{name}: scored in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return {"name": name, "parameters": parameters, "bits_per_byte": found}


def baselines(train: Path, texts: dict[str, list[str]], name: str, tokenizer: Tokenizer) -> Iterator[Row]:
    """The rows of the two 5-gram models."""
    documents = list(read(train))
    kinds: list[tuple[str, int, Callable[[Sequence[str]], Iterator[Symbols]]]] = [
        ("bytes", 256, lambda some: (text.encode() for text in some)),
        (f"tokens of {name}", max(tokenizer.get_vocab().values()) + 1, lambda some: encode(tokenizer, some)),
    ]
    for kind, vocabulary, symbols in kinds:
        started = time.perf_counter()
        model = KneserNey(symbols(documents), vocabulary)
        print(f"{ORDER}-gram of {kind}: trained in {time.perf_counter() - started:.0f} s", file=sys.stderr)

        def bits(text: str, model: KneserNey = model, symbols: Callable[..., Iterator[Symbols]] = symbols) -> float:
            return model.bits(next(symbols([text])))

        yield score(f"{ORDER}-gram, {kind}", model.parameters, bits, texts)


def markdown(rows: Sequence[Row]) -> str:
    """The table, bits per byte with three decimals."""
    columns = list(rows[0]["bits_per_byte"])
    lines = [f"| model | parameters | {' | '.join(columns)} |", "|---" + "|--:" * (1 + len(columns)) + "|"]
    for row in rows:
        scores = " | ".join(f"{row['bits_per_byte'][column]:.3f}" for column in columns)
        lines.append(f"| {row['name']} | {row['parameters']:,} | {scores} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Held-out bits per byte of language models and 5-gram models.")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="a column each: .jsonl or .txt")
    parser.add_argument("--train", type=Path, required=True, help="what the 5-gram models learn from: .jsonl or .txt")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--limit-bytes", type=int, default=200_000, help="of each text; whole documents")
    parser.add_argument("--out", type=Path, help="the table as JSON")
    given = parser.parse_args(arguments)
    folders = dict(one.split("=", 1) if "=" in one else parser.error(f"NAME=FOLDER, not {one}") for one in given.models)
    texts = {path.stem: read_up_to(path, given.limit_bytes) for path in given.texts}
    if len(texts) < len(given.texts) or len(folders) < len(given.models):
        parser.error("two texts or two models have the same name")
    rows = []
    for name, folder in folders.items():
        model = Transformer(Path(folder))
        rows.append(score(name, model.parameters, model.bits, texts))
        if model.unknown_seen:
            print(f"{name}: {model.unknown_seen} unknown tokens, so the bits are too few", file=sys.stderr)
    first = next(iter(folders))
    rows.extend(baselines(given.train, texts, first, load_tokenizer(Path(folders[first]))))
    print(markdown(rows))
    if given.out:
        about = {name: {"documents": len(some), "bytes": len("".join(some).encode())} for name, some in texts.items()}
        made = {"texts": about, "train": given.train.name, "rows": rows}
        given.out.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
