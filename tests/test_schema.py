"""The JSON Schema: valid, documented, and of one mind with the config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from fettle.config import Config
from fettle.schema import json_schema
from fettle.section import docs, walk
from tests.conftest import make_config

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def objects(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if isinstance(part.get("properties"), dict):
            yield part
        for value in part.values():
            yield from objects(value)
    elif isinstance(part, list):
        for value in part:
            yield from objects(value)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_is_described_and_nothing_else_allowed() -> None:
    named = set()
    for part in objects(SCHEMA):
        assert part["additionalProperties"] is False, part.get("title")
        for key, value in part["properties"].items():
            assert value.get("description"), (part.get("title"), key)
            named.add(key)
    assert {path[-1] for path, _, _ in walk(Config)} <= named
    assert SCHEMA["$defs"]["FinetuneTrainer"]["properties"]["epochs"]["description"] == "Passes over the training set."
    assert SCHEMA["properties"]["adapter"]["description"] == docs(Config)["adapter"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "adapter": "lora",
            "backend": "local",
            "dataset": "rows.csv",
            "trainer__optimizer": "adamw",
            "preprocessing__split": "random",
        },
        {"adapter": None, "adapters": None, "quantization": None, "hyperopt": None},
        {"adapter": {"type": "lora", "r": 4, "target_modules": "all-linear"}, "trainer__learning_rate": 2e-4},
        {"model_parameters": {"rope_scaling": {"type": "dynamic", "factor": 2.0}}},
        {"model_parameters": {"rope_scaling": {"rope_type": "yarn"}}},
        {"preprocessing__split": {"type": "stratify", "column": "c"}, "prompt__use_chat_template": True},
        {"trainer__optimizer": {"type": "paged_adamw_8bit"}, "trainer__learning_rate_scheduler": {"decay": None}},
    ],
)
def test_valid_configs(changes: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(make_config(**changes))) == []


def test_older_spelling_of_base_model() -> None:
    data = make_config(model_name="fettle:pocket")
    del data["base_model"]
    assert VALIDATOR.is_valid(data)
    del data["model_name"]
    assert not VALIDATOR.is_valid(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer__learning_rte": 1e-3},
        {"adaptr": "lora"},
        {"adapter": "lorra"},
        {"adapter": {"type": "lora", "rank": 8}},
        {"trainer__optimizer": "adamv"},
        {"trainer__epochs": "3"},
        {"trainer__epochs": 0},
        {"trainer__type": "finetunes"},
        {"prompt__tempalte": "x"},
        {"model_type": "ecd"},
        {"generation__top_p": 2},
        {"input_features__0__nmae": "x"},
    ],
)
def test_typos_and_wrong_values(changes: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(make_config(**changes))
