"""The training text of the pocket model: the same bytes each time, nothing on both sides, chats and JSON in order."""

import importlib
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pocket"
FILES = ["pretrain.jsonl", "pretrain_validation.jsonl", "chat.jsonl", "chat_validation.jsonl", "corpus.json"]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe's modules, which stand beside their script and in no package."""
    monkeypatch.syspath_prepend(str(RECIPE))
    names = ["wording", "fewshot", "talk", "synthetic", "corpus"]
    yield importlib.import_module("corpus")
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Small files in the forms of the real ones."""
    root = tmp_path / "data"
    turns = [("USER", "I need a taxi."), ("SYSTEM", "Where to?"), ("USER", "To Leeds."), ("SYSTEM", "Done.")]
    calls = [("human", "Rate?"), ("function_call", '{"name": "rate"}'), ("observation", "{}"), ("gpt", "It is 2.")]
    forbidden = {"instruction": "Sort it.", "input": "x", "output": '{"intent": 1, "product": 2, "urgency": 3}'}
    gsm8k = [
        {"question": f"What is {n} plus 1?", "answer": f"It is {n}+1=<<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"}
        for n in range(30)
    ]
    boolq = [{"query": f"Passage: Text {n // 2}.\nQuestion: is it so?", "choices": ["no", "yes"]} for n in range(20)]
    rasbt = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(20)]
    glaive = [{"conversations": [{"from": a, "value": b} for a, b in calls], "tools": '[{"name": "rate"}]'}]
    files = {
        "gsm8k/train.jsonl": "\n".join(map(json.dumps, gsm8k)),
        "lm_eval_a/boolq.jsonl": "\n".join(map(json.dumps, boolq)),
        "sgd_dialogues/dialogues_001.json": json.dumps(
            [{"turns": [{"speaker": who, "utterance": f"{text} {n}"} for who, text in turns]} for n in range(5)]
        ),
        "banking77/train.csv": "text,category\n" + "\n".join(f"Where is card {n}?,card" for n in range(40)),
        "stsb_en/stsb-en-train.csv": "\n".join(f"A man {n}.,A dog {n}.,1.0" for n in range(40)),
        "tinyshakespeare/input.txt": "\n\n".join(f"First:\nSpeak {n}, {'speak ' * 30}." for n in range(60)),
        "glaive_toolcall_demo/glaive_toolcall_en_demo.json": json.dumps(glaive * 2),
        "rasbt_instruction/instruction-data.json": json.dumps([*rasbt, forbidden]),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def read_rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_gives_the_same_bytes(recipe: Any, data: Path, tmp_path: Path) -> None:
    for out, seed in (("one", 1), ("two", 1), ("three", 2)):
        recipe.build(data, tmp_path / out, seed, 60_000, 120)

    def content(out: str) -> list[bytes]:
        return [(tmp_path / out / name).read_bytes() for name in FILES]

    assert content("one") == content("two")
    assert content("one")[0] != content("three")[0]


def test_nothing_is_in_training_and_validation(recipe: Any, data: Path, tmp_path: Path) -> None:
    recipe.build(data, tmp_path, 7, 100_000, 400)
    train, held = (read_rows(tmp_path / name) for name in FILES[:2])
    assert held
    assert not {row["text"] for row in train} & {row["text"] for row in held}
    assert {row["source"] for row in held} >= {"gsm8k", "synthetic_few_shot", "chatml"}
    train, held = ([recipe.prompt_of(row["messages"]) for row in read_rows(tmp_path / name)] for name in FILES[2:4])
    assert held
    assert not set(train) & set(held)


def test_chats_alternate_and_end_with_the_assistant(recipe: Any, data: Path, tmp_path: Path) -> None:
    recipe.build(data, tmp_path, 7, 30_000, 400)
    rows = [row["messages"] for name in FILES[2:4] for row in read_rows(tmp_path / name)]
    for messages in rows:
        turns = messages[1:] if messages[0]["role"] == "system" else messages
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(turn["content"].strip() for turn in messages)
    assert any(messages[0]["role"] == "system" for messages in rows)


def test_natural_text_is_cleaned(recipe: Any, data: Path, tmp_path: Path) -> None:
    recipe.build(data, tmp_path, 7, 30_000, 50)
    rows = [row for name in FILES[:2] for row in read_rows(tmp_path / name)]
    whole = "\n".join(row["text"] for row in rows)
    assert "<<" not in whole
    assert "####" not in whole.replace("### ", "")
    assert "It is 3+1=4.\nThe answer is 4." in whole
    assert sorted(row["text"] for row in rows if row["source"] == "boolq_passages") == [f"Text {n}." for n in range(10)]
    assert "card,card" not in whole


def test_the_task_of_the_quickstart_stays_unknown(recipe: Any, data: Path, tmp_path: Path) -> None:
    recipe.build(data, tmp_path, 7, 100_000, 400)
    for name in FILES[:4]:
        for row in (tmp_path / name).read_text(encoding="utf-8").splitlines():
            assert not all(key in row for key in ("intent", "product", "urgency"))


@pytest.mark.parametrize("plain", [True, False])
def test_every_json_answer_parses(recipe: Any, plain: bool) -> None:
    fewshot = importlib.import_module("fewshot")
    rng = Random(3)
    for _ in range(400):
        answer = json.loads(fewshot.json_task(rng, plain).draw(rng)[1])
        assert isinstance(answer, dict)
        assert "intent" not in answer
    kinds = {name: kind for name, _, kind in recipe.CHATS}
    for _ in range(300):
        prompt, answer = kinds["record_tasks"](rng)
        if prompt.startswith(("Write these fields as JSON", "Keep only")):
            assert isinstance(json.loads(answer), dict)


def test_spans_are_in_the_text(recipe: Any) -> None:
    fewshot = importlib.import_module("fewshot")
    rng = Random(5)
    for _ in range(300):
        text, answer = fewshot.span_task(rng).draw(rng)
        assert answer in text
