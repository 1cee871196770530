"""Keys that are refused for now, and keys that are read but change nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from fettle import availability
from fettle.config import Config, load
from fettle.errors import ConfigError
from tests.conftest import faults, make_config

Change = Callable[..., dict[str, Any]]


# A value other than the default for each key that is refused for now.
REFUSED: dict[str, Any] = {
    "quantization": {"bits": 4},
    "adapters": {"adapters": {"a": {"type": "lora"}}},
    "adapter.type": "ia3",
    "adapter.pretrained_adapter_weights": "folder",
    "adapter.init_lora_weights": "eva",
    "adapter.eva_config": {},
    "adapter.loftq_config": {},
    "model_parameters.rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "model_parameters.neftune_noise_alpha": 5,
    "prompt.retrieval": {"type": "random"},
    "output_features.type": "category",
    "output_features.loss.type": "sparsemax",
    "trainer.type": "dpo",
    "trainer.layers_to_freeze_regex": "x",
    "trainer.model_soup": "uniform",
    "generation.max_time": 1.0,
    "generation.early_stopping": "never",
    "generation.penalty_alpha": 0.5,
    "generation.exponential_decay_length_penalty": [5, 1.1],
    "generation.sequence_bias": {"x": 1.0},
    "generation.bad_words_ids": [[1]],
    "generation.force_words_ids": [[1]],
    "generation.forced_decoder_ids": [[1, 2]],
    "generation.suppress_tokens": [1],
    "generation.begin_suppress_tokens": [1],
    "generation.stop_strings": ["x"],
    "generation.min_length": 1,
    "backend.type": "ray",
    "backend.credentials": {"s3": {}},
    "hyperopt": {"goal": "x"},
    "defaults": {"text": {}},
    "preset": "x",
}


def other_value(path: str) -> Any:
    """A value that the key takes and that is not its default."""
    if path in REFUSED:
        return REFUSED[path]
    for default in availability.defaults(Config)[path]:
        if isinstance(default, bool):
            return not default
        if isinstance(default, int):
            return default + 1
        if isinstance(default, float):
            return default / 2 or 0.5
        if isinstance(default, str):
            return "something"
        if isinstance(default, list):
            return ["something"]
    return 3


def config_with(path: str, value: Any) -> dict[str, Any]:
    data = make_config()
    if path.startswith("adapter."):
        data["adapter"] = {"type": "lora"}
    if path.startswith("backend."):
        data["backend"] = {"type": "local"}
    here: Any = data
    *parents, last = path.split(".")
    for part in parents:
        here = here.setdefault(part, {})
        here = here[0] if isinstance(here, list) else here
    here[last] = value
    return data


@pytest.mark.parametrize("path", [path for path, _ in availability.NOT_YET])
def test_what_is_not_available_yet_is_refused_by_name(path: str) -> None:
    shown = path.replace("_features.", "_features[0].")
    said = faults(config_with(path, other_value(path)))
    refusals = [fault for fault in said if fault.startswith(f"config: {shown}: ") and "not available yet" in fault]
    assert len(refusals) == 1, said


@pytest.mark.parametrize(("path", "allowed"), availability.NOT_YET)
def test_what_is_allowed_besides_is_not_refused(path: str, allowed: tuple[Any, ...]) -> None:
    assert path in availability.defaults(Config)
    for value in allowed:
        with contextlib.suppress(ConfigError):  # the value alone may want another key beside it
            load(config_with(path, value))
            continue
        assert "not available" not in str(faults(config_with(path, value)))


EFFECTLESS: dict[str, Any] = {
    "input_features.preprocessing.padding": "right",
    "output_features.preprocessing.padding": "right",
    "output_features.class_similarities": [[1.0]],
    "output_features.decoder.match_strategy": "regex",
    "trainer.learning_rate_scaling": "sqrt",
    "trainer.loss_balancing": "famo",
    "trainer.loss_balancing_preference_vector": [1.0],
    "input_features.tied": "answer",
}


@pytest.mark.parametrize(("path", "why"), availability.NO_EFFECT)
def test_keys_without_effect_are_warned_of(path: str, why: str) -> None:
    if path not in availability.defaults(Config):
        pytest.fail(f"{path} is no key of the schema")
    value = EFFECTLESS.get(path, other_value(path))
    if "trainer.packing" in path:
        data = config_with(path, value)
        data["trainer"]["type"] = "none"
    else:
        data = config_with(path, value)
    if path.endswith(("vocab_file", "name_or_path", "tokenizer", "column", "fill_value", "bucketing_field", "version")):
        data = config_with(path, "something")
    loaded = load(data)
    shown = path.replace("_features.", "_features[0].")
    assert loaded.warnings == (f"config: {shown}: has no effect: {why}",)


def test_writing_defaults_out_changes_nothing(config: Change) -> None:
    data = config(
        prompt__retrieval={"type": None, "k": 0},
        model_parameters={"rope_scaling": {}, "neftune_noise_alpha": 0},
        defaults={},
        hyperopt=None,
        generation__num_beams=1,
    )
    assert load(data).warnings == ()
