"""Continued pretraining: plain text, loss on every token; from the file to the score and back into a prompt."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fettle import Model
from fettle.base import find
from fettle.config import load
from fettle.errors import ConfigError
from fettle.prepare import Rows, Sources
from tests.conftest import faults

TEXTS = [
    f"Line {n} of the {word} tale, told again and again." for n, word in enumerate("red blue green old new".split() * 8)
]


def section(base: Path, **changes: Any) -> dict[str, Any]:
    trainer = {"type": "pretrain", "train_steps": 4, "effective_batch_size": 4, "learning_rate": 1e-2, **changes}
    return {
        "model_type": "llm",
        "base_model": str(base),
        "preprocessing": {"split": {"type": "random", "probabilities": [0.8, 0.1, 0.1]}},
        "trainer": trainer,
    }


def documents(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def plain(model: Any, tokenizer: Any, texts: list[str]) -> tuple[float, int]:
    """Summed loss and number of labels, document by document, by transformers alone."""
    total, labels = 0.0, 0
    for text in texts:
        ids = torch.tensor([[tokenizer.eos_id, *tokenizer.encode([text], special=False)[0], tokenizer.eos_id]])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=ids).loss
        total, labels = total + float(loss) * (ids.shape[1] - 1), labels + ids.shape[1] - 1
    return total, labels


def test_the_score_is_that_of_every_document_by_itself(tmp_path: Path, tiny_llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    data = documents(tmp_path / "text.jsonl")
    model = Model({**section(tiny_llama), "trainer": {"type": "none"}, "dataset": {"format": "text"}})
    scores, _, _ = model.evaluate(data)
    tokenizer = find(load(section(tiny_llama)).config, tmp_path).tokenizer
    total, labels = plain(AutoModelForCausalLM.from_pretrained(tiny_llama), tokenizer, TEXTS)
    assert max(map(len, TEXTS)) < 128
    size = sum(len(text.encode()) for text in TEXTS)
    # blocks are cut at 128 tokens, and what goes on in the next block has lost what stood before it
    assert scores["output"]["loss"] == pytest.approx(total / labels, rel=0.02)
    assert scores["output"]["bits_per_byte"] == pytest.approx(scores["output"]["loss"] * labels / math.log(2) / size)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("adapter", [None, {"type": "lora"}])
def test_training_lowers_the_loss_of_every_token(
    tmp_path: Path, tiny_llama: Path, across: bool, adapter: dict[str, str] | None
) -> None:
    config = {**section(tiny_llama, attend_across_documents=across, train_steps=12), "adapter": adapter}
    results = Model(config).train(documents(tmp_path / "text.jsonl"), output_directory=tmp_path / "results")
    loss = results.train_stats["validation"]["combined"]["loss"]
    assert loss[-1] < loss[0] - (0.1 if adapter is None else 0.03)  # an adapter on random weights learns little
    folder = Path(results.output_directory)
    scores = json.loads((folder / "test_statistics.json").read_text())
    assert scores["bits_per_byte"] > 0
    assert scores["rows_answered"] == 0
    assert (folder / "model" / "README.md").is_file()
    again = Model.load(folder)
    said = again.generate("Line", {"max_new_tokens": 3}, return_full_text=False)
    assert isinstance(said, str)
    same, _, _ = again.evaluate(tmp_path / "text.jsonl", split="test")
    assert same["output"]["loss"] == pytest.approx(scores["loss"], rel=1e-4)


def test_a_prompt_is_a_prefix_of_what_was_trained_on(tmp_path: Path, tiny_llama: Path) -> None:
    loaded = load(section(tiny_llama))
    base = find(loaded.config, tmp_path)
    rows = Rows(loaded.config, Sources(documents(tmp_path / "text.jsonl")), tmp_path, base.tokenizer, 128, 0)
    [(_, _, encoded, _)] = rows.encoded("test")
    prompts = [ids for _, _, ids in rows.prompts(rows.splits["test"])]
    for prompt, one in zip(prompts, encoded, strict=True):
        assert one.ids[: len(prompt)] == prompt
        assert one.ids[-1] == base.tokenizer.eos_id
        assert one.trained == [False] + [True] * (len(one.ids) - 1)


def test_a_stopped_run_ends_with_the_same_weights(tmp_path: Path, tiny_llama: Path) -> None:
    data = documents(tmp_path / "text.jsonl")
    whole = Model(section(tiny_llama)).train(data, output_directory=tmp_path / "whole")
    config = section(tiny_llama, steps_per_checkpoint=2)

    class Stop(Exception):
        pass

    class Stopper:
        def __getattr__(self, name: str) -> Any:
            def seen(*args: Any) -> None:
                if name == "on_step" and args[0]["step"] == 3:
                    raise Stop

            return seen

    with pytest.raises(Stop):
        Model(config).train(data, output_directory=tmp_path / "stopped", callbacks=[Stopper()])
    [folder] = (tmp_path / "stopped").iterdir()
    Model(config).train(data, model_resume_path=folder)
    weights = [Path(path) / "model" / "model.safetensors" for path in (whole.output_directory, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_text_files_are_documents(tmp_path: Path, tiny_llama: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("\n\n".join(TEXTS[:20]))
    config = section(tiny_llama)
    config["dataset"] = {"path": str(tmp_path / "*.txt"), "document_separator": "\n\n"}
    prepared = Model(config).preprocess()
    assert prepared.training_set_metadata == {"format": "text"}
    assert sum(len(split.rows_D) for split in prepared[:3]) == 40  # type: ignore[attr-defined]


def test_empty_documents_are_counted_and_others_named(tmp_path: Path, tiny_llama: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "fine"}\n{"text": " "}\n{"text": null}\n' + '{"text": "more"}\n' * 20)
    prepared = Model(section(tiny_llama)).preprocess(path)
    assert sum(split.counts.get("empty", 0) for split in prepared[:3]) == 2
    path.write_text('{"text": "fine"}\n{"text": 3}\n' + '{"text": "more"}\n' * 20)
    with pytest.raises(ConfigError, match=r"text.jsonl:2: column 'text': expected a text, got int"):
        Model(section(tiny_llama)).train(path, output_directory=tmp_path / "results")
    path.write_text('{"body": "fine"}\n' * 20)
    with pytest.raises(ConfigError, match="there is no column 'text'"):
        Model(section(tiny_llama)).train(path, output_directory=tmp_path / "results")


def test_what_cannot_go_together(tiny_llama: Path) -> None:
    told = "\n".join(
        faults(
            {
                **section(tiny_llama),
                "output_features": [{"name": "text", "type": "text"}],
                "dataset": {"format": "messages"},
            }
        )
    )
    assert "output_features: has no place in trainer.type: pretrain" in told
    assert "reads plain text (format: text), not messages" in told
    [fault] = faults({**section(tiny_llama), "trainer": {"type": "finetune"}, "dataset": {"format": "text"}})
    assert "use pretrain" in fault
    notes = load(
        {**section(tiny_llama), "prompt": {"system": "x"}, "preprocessing": {"overlong_rows": "drop"}}
    ).warnings
    assert any("prompt.system" in note and "plain text" in note for note in notes)
    assert any("overlong_rows" in note for note in notes)
