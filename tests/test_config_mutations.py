"""1,000 mutated configs: a valid Config or a FettleError, never anything else."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from fettle.config import Loaded, load
from fettle.errors import FettleError
from fettle.run import filled_text
from fettle.yamlfile import dump
from tests.conftest import make_config

SEEDS = [
    make_config(adapter="lora", prompt__template="Q: {question}\nA:", generation__max_new_tokens=9),
    make_config(
        adapter={"type": "lora", "r": 4, "target_modules": ["q_proj"]},
        preprocessing__split={"type": "hash", "column": "id", "probabilities": [0.8, 0.1, 0.1]},
        trainer__optimizer={"type": "adam", "betas": [0.9, 0.99]},
        trainer__learning_rate_scheduler={"decay": "linear", "warmup_fraction": 0.1},
        output_features__0__decoder={"type": "text_extractor"},
        input_features__0__preprocessing={"max_sequence_length": 20},
    ),
    {
        "model_type": "llm",
        "base_model": "fettle:pocket",
        "dataset": {"path": "x.jsonl", "format": "messages"},
        "trainer": {"type": "finetune"},
        "prompt": {"system": "Be brief.", "retrieval": {"type": None}},
    },
    {
        "model_type": "llm",
        "model_name": "fettle:pocket",
        "adapters": {"adapters": {"a": {"type": "lora"}}, "active": "a"},
        "quantization": {"bits": 4},
        "backend": "ray",
        "trainer": {"type": "dpo", "beta": 0.2},
    },
]
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    10**30,
    0.5,
    -2.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "auto",
    "lora",
    "finetune",
    "none",
    "2e-4",
    "{",
    "{a.b}",
    "{question}",
    [],
    {},
    [1],
    [[1]],
    [None],
    {"type": "lora"},
    {"type": None},
    {"type": []},
    {"type": {}},
    {"a": {"b": 1}},
    [{"name": "x"}],
    "\u2028",
    "🙂",
    {"": 1},
    {"type": "text"},
    [{"type": "category", "name": "x"}],
]
KEYS = [
    "type",
    "name",
    "trainer",
    "r",
    "epochs",
    "",
    "0",
    "adapter",
    "finetune",
    "lora",
    "optimizer",
    "adapters",
    "<<",
    "model_name",
]


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    if isinstance(data, dict):
        found += [one for key, value in data.items() for one in places(value, (*at, key))]
    if isinstance(data, list):
        found += [one for index, value in enumerate(data) for one in places(value, (*at, index))]
    return found


def mutate(data: Any, chance: random.Random) -> None:
    spots = places(data)
    if not spots:
        return
    *parents, last = chance.choice(spots)
    here = data
    for part in parents:
        here = here[part]
    what = chance.choice(["delete", "rename", "replace", "retype", "nest", "insert"])
    if what == "delete":
        del here[last]
    elif what == "rename" and isinstance(here, dict):
        here[chance.choice([*KEYS, last + "x", last[:-1]])] = here.pop(last)
    elif what == "replace":
        here[last] = copy.deepcopy(chance.choice(ODD))
    elif what == "retype":
        value = here[last]
        here[last] = chance.choice([str(value), [value], {"type": value}, {"x": value}, repr(value)])
    elif what == "nest":
        for _ in range(chance.choice([1, 3, 80])):
            here[last] = {last if isinstance(last, str) else "x": here[last]}
    elif isinstance(here[last], dict):
        here[last][chance.choice(KEYS)] = copy.deepcopy(chance.choice(ODD))
    elif isinstance(here[last], list):
        here[last].insert(0, copy.deepcopy(chance.choice(ODD)))


def mutate_text(text: str, chance: random.Random) -> str:
    what = chance.choice(["cut", "swap", "control", "delete", "double", "mark"])
    at = chance.randrange(len(text))
    if what == "cut":
        return text[:at]
    if what == "control":
        return text[:at] + chance.choice("\0\x07\x1b\x85\ufeff\u2028\ud800\t\r") + text[at:]
    if what == "delete":
        return text[:at] + text[at + chance.randrange(1, 9) :]
    if what == "mark":
        return (
            text[:at]
            + chance.choice(["&a", "*a", "!", "|", ">", "- ", ": ", "? ", "{", "]", '"', "'", "%", "<<: "])
            + text[at:]
        )
    lines = text.splitlines(keepends=True)
    one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
    if what == "swap":
        lines[one], lines[two] = lines[two], lines[one]
    else:
        lines.insert(one, lines[two])
    return "".join(lines)


def outcome(source: Any, overrides: list[str]) -> Loaded | FettleError:
    try:
        return load(source, overrides)
    except FettleError as error:
        return error


@pytest.mark.parametrize("part", range(10))
def test_mutations_are_loaded_or_refused(part: int) -> None:
    refused = 0
    for seed in range(part * 60, part * 60 + 60):
        chance = random.Random(seed)
        data = copy.deepcopy(chance.choice(SEEDS))
        for _ in range(chance.choice([1, 1, 2, 5])):
            mutate(data, chance)
        overrides = [
            f"{'.'.join(map(str, spot))}={chance.choice(ODD)}"
            for spot in chance.sample(places(data), k=min(1, len(places(data))))
            if seed % 3 == 0
        ]
        found = outcome(data, overrides)
        if isinstance(found, Loaded):
            assert load(filled_text(found.config, {})).config == found.config
        else:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("part", range(10))
def test_mutated_texts_are_loaded_or_refused(part: int) -> None:
    refused = 0
    for seed in range(part * 40, part * 40 + 40):
        chance = random.Random(seed)
        text = dump(chance.choice(SEEDS))
        for _ in range(chance.choice([1, 2, 4])):
            text = mutate_text(text, chance) or "\n"
        refused += isinstance(outcome(text + "\n", []), FettleError)
    assert refused > 5
