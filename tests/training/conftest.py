"""Small runs on the embedded model."""

import json

import pytest

from fettle import Model

WORDS = "red blue green cat dog bird runs sleeps sings big small old".split()


def rows(count, offset=0):
    """Sentences to repeat in capitals: something a tiny model can begin to learn."""
    made = []
    for number in range(offset, offset + count):
        text = " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 3 + number % 6))
        made.append({"text": f"{text} {number}", "loud": text.upper()})
    return made


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(64)))
    return path


def config(**trainer):
    adapter = trainer.pop("adapter", None)
    return {
        "model_type": "llm",
        "base_model": "fettle:pocket",
        "input_features": [{"name": "text", "type": "text"}],
        "output_features": [{"name": "loud", "type": "text"}],
        "prompt": {"template": "{text} ->", "use_chat_template": False},
        "preprocessing": {"split": {"type": "random", "probabilities": [0.75, 0.125, 0.125]}},
        "adapter": adapter,
        "generation": {"max_new_tokens": 4},
        "trainer": {
            "type": "finetune", "epochs": 1, "effective_batch_size": 8, "learning_rate": 1e-3,
            "learning_rate_scheduler": {"warmup_fraction": 0.0}, **trainer,
        },
    }  # fmt: skip


@pytest.fixture
def run(data, tmp_path):
    """Train under a config; returns (Model, TrainingResults)."""

    def go(section=None, dataset=None, **options):
        model = Model(section or config())
        results = model.train(dataset or data, output_directory=tmp_path / "results", test_answers=0, **options)
        return model, results

    return go
