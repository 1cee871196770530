"""The table of bits per byte: n-gram probabilities against their definition, windows, and what a document costs."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tests.conftest import byte_level, save_tokenizer

SCRIPT = Path(__file__).parents[2] / "recipes" / "pocket" / "compare.py"
VOCABULARY, END, BEGIN = 6, 6, 7
CONTEXTS = [[], [0], [5], [0, 1, 2], [5, 5, 5, 5, 5], [4, 0, 1, 2, 3, 0, 1], [3, 3, 0, 1, 2]]


@pytest.fixture(scope="module")
def compare() -> Any:
    spec = importlib.util.spec_from_file_location("compare", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare"]


def sample(seed: int = 0, documents: int = 60) -> list[list[int]]:
    """Mostly counting upwards, of different lengths; symbol 5 never occurs."""
    rng, found = Random(seed), []
    for _ in range(documents):
        document = [rng.randrange(5)]
        for _ in range(rng.randrange(1, 25)):
            document.append((document[-1] + 1) % 5 if rng.random() < 0.7 else rng.randrange(5))
        found.append(document)
    return found


def by_definition(compare: Any, documents: list[list[int]], order: int, context: list[int], symbol: int) -> float:
    """Chen & Goodman's recursion over dictionaries, one probability at a time."""
    framed = [[BEGIN, *one, END] for one in documents]
    raw = [Counter(tuple(one[i : i + k]) for one in framed for i in range(len(one) - k + 1)) for k in range(order + 2)]

    def counts(k: int) -> Counter[tuple[int, ...]]:
        if k == order:
            return raw[k]
        left = Counter(gram[1:] for gram in raw[k + 1])
        return Counter({gram: count if gram[0] == BEGIN else left[gram] for gram, count in raw[k].items()})

    def probability(history: tuple[int, ...]) -> float:
        k = len(history) + 1
        own = {gram: count for gram, count in counts(k).items() if gram != (BEGIN,)}
        given = compare.discounts(torch.tensor(list(own.values())).numpy())
        lower = probability(history[1:]) if history else 1 / (VOCABULARY + 1)
        following = {gram[-1]: count for gram, count in own.items() if gram[:-1] == history}
        if not following:
            return lower
        total = sum(following.values())
        freed = sum(given[min(count, 3)] for count in following.values())
        count = following.get(symbol, 0)
        return (count - given[min(count, 3)] + freed * lower) / total

    return probability(tuple([BEGIN, *context][-(order - 1) :] if order > 1 else []))


def test_discounts_follow_the_formula_and_fall_back(compare: Any) -> None:
    counts = torch.tensor([1] * 10 + [2] * 5 + [3] * 3 + [4] * 2 + [9]).numpy()
    y = 10 / 20
    assert compare.discounts(counts).tolist() == pytest.approx([0, 1 - 2 * y * 0.5, 2 - 3 * y * 0.6, 3 - 4 * y * 2 / 3])
    assert compare.discounts(torch.tensor([5, 7, 1]).numpy()).tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_one_after_any_context(compare: Any, order: int) -> None:
    model = compare.KneserNey(sample(), VOCABULARY, order)
    for context in CONTEXTS:
        found = [model.probabilities([*context, symbol])[-1] for symbol in range(VOCABULARY + 1)]
        assert min(found) > 0
        assert sum(found) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_definition(compare: Any, order: int) -> None:
    documents = sample(3)
    model = compare.KneserNey(documents, VOCABULARY, order)
    for context in CONTEXTS:
        for symbol in (0, 3, 5, END):
            expected = by_definition(compare, documents, order, context, symbol)
            assert model.probabilities([*context, symbol])[-1] == pytest.approx(expected)


def test_long_contexts_lower_the_loss_of_a_repetitive_text(compare: Any) -> None:
    texts = [text.encode() for text in ["the cat sat on the mat and the dog sat on the cat. " * 4] * 5]
    unigram, five = (compare.KneserNey(texts, 256, order).bits(texts[0]) / len(texts[0]) for order in (1, 5))
    assert five < 0.5 < 2 < unigram
    assert unigram < 8


def test_documents_shorter_than_the_order_are_fine(compare: Any) -> None:
    model = compare.KneserNey([[0], [1, 2]], 3)
    assert sum(model.probabilities([0, 1, symbol])[-1] for symbol in range(4)) == pytest.approx(1)


@pytest.mark.parametrize("context", [1, 2, 5, 8])
@pytest.mark.parametrize("inputs", [1, 2, 7, 8, 9, 30])
def test_windows_score_each_token_once(compare: Any, inputs: int, context: int) -> None:
    scored: list[int] = []
    for begin, end, first in compare.windows(inputs, context):
        assert 0 < end - begin <= context
        assert begin == 0 or (end - begin == context and first - begin >= context // 2)
        scored += range(first, end)
    assert scored == list(range(inputs))


def markov(seed: int = 1) -> Any:
    """Logits that depend on the last token alone, and what they say, to compare with."""
    table = torch.randn(20, 20, generator=torch.Generator().manual_seed(seed))
    return lambda ids: table[ids], table.log_softmax(-1)


def test_the_loss_is_the_plain_one_and_windows_do_not_change_it(compare: Any) -> None:
    logits_of, table = markov()
    ids = Random(0).choices(range(20), k=41)
    plain = -sum(float(table[a, b]) for a, b in pairwise(ids)) / math.log(2)
    for context in (3, 10, 39, 40, 64):
        assert compare.bits_of_tokens(logits_of, ids, context) == pytest.approx(plain, rel=1e-5)
    assert compare.bits_of_tokens(logits_of, ids[:1], 8) == 0


@pytest.fixture
def uniform(tmp_path: Path) -> Any:
    """Saves a Llama whose logits are all zero, with a tokenizer of these special tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(**special: str) -> Path:
        tokenizer = byte_level(["<s>", "</s>"] if special else [])
        folder = save_tokenizer(tmp_path / "-".join(["model", *special]), tokenizer, **special)
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = LlamaConfig(vocab_size=512, max_position_embeddings=16, **sizes)
        model = LlamaForCausalLM(config)
        torch.nn.init.zeros_(model.lm_head.weight)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("special", [{}, {"bos_token": "<s>", "eos_token": "</s>"}, {"eos_token": "</s>"}])
def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(
    compare: Any, uniform: Any, special: dict[str, str]
) -> None:
    text = "Größe — a text with <s> spelled out, longer than the context of sixteen tokens. " * 3
    model = compare.Transformer(uniform(**special))
    tokens = len(next(compare.encode(model.tokenizer, [text])))
    row = compare.score("uniform", model.parameters, model.bits, {"some": [text, text]})
    assert row["bits_per_byte"]["some"] == pytest.approx(math.log2(512) * tokens / len(text.encode()))
    expected = special.get("bos_token", special.get("eos_token"))
    assert model.start == (model.tokenizer.token_to_id(expected) if expected else None)
    assert model.tokenizer.decode(next(compare.encode(model.tokenizer, [text])).tolist()) == text


def test_the_table_has_a_column_for_each_text(compare: Any, uniform: Any, tmp_path: Path, capsys: Any) -> None:
    lines = [f"Line {n} of the tale, told again and again." for n in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(lines))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": line + "\nand more"}) + "\n" for line in lines))
    texts, out = [str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")], tmp_path / "table.json"
    models = ["--models", f"tiny={uniform()}", "--limit-bytes", "190", "--out", str(out)]
    compare.main(["--texts", *texts, "--train", texts[1], *models])
    shown = capsys.readouterr().out.splitlines()
    made = json.loads(out.read_text())
    assert shown[0] == "| model | parameters | a | b |"
    assert [row["name"] for row in made["rows"]] == ["tiny", "5-gram, bytes", "5-gram, tokens of tiny"]
    taken = {"a": lines[:4], "b": [line + "\nand more" for line in lines[:3]]}  # the next ones end beyond the limit
    sizes = {name: {"documents": len(some), "bytes": len("".join(some))} for name, some in taken.items()}
    assert made["texts"] == sizes
    assert all(row["bits_per_byte"]["a"] < made["rows"][0]["bits_per_byte"]["a"] for row in made["rows"][1:])
    with pytest.raises(SystemExit, match="does not fit"):
        compare.main(["--texts", *texts, "--train", texts[1], *models[:2], "--limit-bytes", "10"])
