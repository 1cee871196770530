"""The embedded base model: small, plain, and really pretrained."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fettle import Model
from tests.conftest import POCKET

# Written for this test, so that no corpus holds it.
NEUTRAL = (
    "The old ferry crosses the river four times a day. In winter, when the water is high, the captain waits until the "
    "fog has lifted. Most of the passengers are students and workers from the villages on the other side. They know "
    "each other, and they bring coffee for the crew. Last year the town wanted to build a bridge, but there was not "
    "enough money for it."
)


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    """Model and tokenizer, by transformers alone."""
    return AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        POCKET
    )


def bits_per_byte(model: Any, tokenizer: Any, text: str) -> float:
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text).input_ids]])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    return float(loss) * (ids.shape[1] - 1) / math.log(2) / len(text.encode())


def test_it_is_small_and_says_where_it_comes_from() -> None:
    assert sum(path.stat().st_size for path in POCKET.iterdir()) <= 8_000_000
    card = (POCKET / "README.md").read_text()
    for licence in ("Apache-2.0", "CC BY-SA 4.0", "CC BY 4.0", "MIT", "public domain"):
        assert licence in card


def test_english_costs_it_far_less_than_chance(plain: tuple[Any, Any]) -> None:
    words = NEUTRAL.split()
    shuffled = " ".join(sorted(words, key=lambda word: (word[::-1], word)))
    assert bits_per_byte(*plain, NEUTRAL) < 2.6
    assert bits_per_byte(*plain, NEUTRAL) < 0.85 * bits_per_byte(*plain, shuffled)


def test_it_answers_in_chat_form_and_stops() -> None:
    model = Model({"model_type": "llm", "base_model": "fettle:pocket", "trainer": {"type": "none"}})
    said = model.generate("Who are you?", {"max_new_tokens": 60}, return_full_text=False)
    assert "Pocket" in said
    assert len(said) < 250


def test_an_adapter_teaches_it_a_task_in_seconds(tmp_path: Any) -> None:
    """What a random base of this size does not learn from 200 rows: to copy what it has never seen."""
    kinds = ["apples", "pears", "plums", "figs"]
    names = [
        f"{a}{b}" for a in ("Mar", "Lo", "Ti", "Ben", "Sa") for b in ("ta", "na", "mo", "lik", "ri", "do", "vo", "ke")
    ]
    rows = [
        {"note": f"{name} ordered {3 + n % 7} {kinds[n % 4]}.", "json": json.dumps({"who": name, "what": kinds[n % 4]})}
        for n, name in enumerate(names * 6)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model_type": "llm",
        "base_model": "fettle:pocket",
        "input_features": [{"name": "note", "type": "text"}],
        "output_features": [{"name": "json", "type": "text"}],
        "prompt": {"template": "{note}\n", "use_chat_template": False},
        "adapter": {"type": "lora", "target_modules": "all-linear"},
        "generation": {"max_new_tokens": 24},
        "trainer": {"type": "finetune", "epochs": 2, "effective_batch_size": 8, "learning_rate": 5e-3},
    }
    results = Model(config).train(data, output_directory=tmp_path / "results", test_answers=20)
    scores = json.loads((tmp_path / "results/api_experiment_run/test_statistics.json").read_text())
    assert results.train_stats["answers"]["base_exact_match"] == 0
    assert scores["exact_match"] >= 0.9
