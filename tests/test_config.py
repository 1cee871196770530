"""The config: every fault at once and in its place, every spelling, every rule, and nothing that crashes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fettle.config import Config, load
from fettle.errors import FettleError, MissingFileError
from fettle.run import filled_text
from fettle.section import docs, walk
from tests.conftest import faults

Change = Callable[..., dict[str, Any]]
HEAD = """model_type: llm
base_model: fettle:pocket
input_features: [{name: question, type: text}]
output_features: [{name: answer, type: text}]
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_key_has_a_docstring() -> None:
    bare = [".".join(path) for path, owner, _ in walk(Config) if not docs(owner).get(path[-1])]
    assert bare == []
    assert docs(Config)["base_model"] == "`fettle:pocket`, a local Hugging Face folder, or a hub id."


def test_all_faults_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """model_type: llm
base_model: fettle:pocket
input_features:
  - {name: question, type: text}
output_features:
  - {name: answer, type: text}
trainer:
  type: finetune
  learning_rte: 1e-3
  epochs: many
  batch_size: 0
adaptr: lora
generation:
  temperature: -1
  min_new_tokens: 9
  max_new_tokens: 3
prompt: {template: "{answer}"}
""",
    )
    assert faults(path) == [
        f"{path}:9: trainer.learning_rte: unknown key, did you mean 'learning_rate'?",
        f"{path}:10: trainer.epochs: expected a whole number, got 'many'",
        f"{path}:11: trainer.batch_size: expected a number >= 1 or 'auto', got 0",
        f"{path}:12: adaptr: unknown key, did you mean 'adapter'?",
        f"{path}:14: generation.temperature: expected a number > 0, got -1",
        f"{path}:15: generation.min_new_tokens: 9 is more than max_new_tokens 3",
        f"{path}:17: prompt.template: shows the model the output column {{answer}}, which it is to write",
    ]


def test_rules_are_checked_though_a_required_key_is_missing(config: Change) -> None:
    data = config(generation__min_length=9, generation__max_length=3)
    del data["base_model"]
    said = faults(data)
    assert "config: base_model: missing; this key is required" in said
    assert "config: generation.min_length: 9 is more than max_length 3" in said


def test_key_of_another_section_is_pointed_out(config: Change) -> None:
    assert faults(config(learning_rate=1e-3)) == [
        "config: learning_rate: unknown key, did you mean 'trainer.learning_rate'?"
    ]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("trainer__epochs", "3", "trainer.epochs: expected a whole number, got '3'"),
        ("trainer__epochs", 2.5, "trainer.epochs: expected a whole number, got 2.5"),
        ("trainer__epochs", 0, "trainer.epochs: expected a number >= 1, got 0"),
        ("trainer__epochs", True, "trainer.epochs: expected a whole number, got True"),
        ("trainer__learning_rate", "fast", "trainer.learning_rate: expected a number or 'auto', got 'fast'"),
        ("trainer__learning_rate", 2, "trainer.learning_rate: expected a number <= 1 or 'auto', got 2"),
        ("trainer__learning_rate", float("nan"), "trainer.learning_rate: expected a number <= 1 or 'auto', got nan"),
        ("trainer__compile", "yes", "trainer.compile: expected true or false, got 'yes'"),
        ("trainer__optimizer", ["adam"], "trainer.optimizer: expected a section of keys and values, got ['adam']"),
        ("generation__top_p", 0, "generation.top_p: expected a number > 0, got 0"),
        ("output_features__0__dependencies", ["a", 1], "output_features[0].dependencies[1]: expected a text, got 1"),
        ("base_model", 3, "base_model: expected a text, got 3"),
        ("prompt", "hello", "prompt: expected a section of keys and values, got 'hello'"),
        ("trainer", None, "trainer: expected a section of keys and values, got None"),
        ("input_features", "question", "input_features: expected a list, got 'question'"),
        ("input_features__0__type", "image", "input_features[0].type: expected 'text', got 'image'"),
        (
            "preprocessing__split",
            {"column": "x"},
            "preprocessing.split: `type` is missing; one of random, fixed, stratify, datetime, hash",
        ),
        (
            "preprocessing__split",
            {"type": "random", "probabilities": [0.5, 0.5]},
            "preprocessing.split.probabilities: expected: ",
        ),
        ("preprocessing__sample_ratio", 1.5, "preprocessing.sample_ratio: expected a number <= 1, got 1.5"),
        ("adapter", {"type": "lora", "r": 0}, "adapter.r: expected a number >= 1, got 0"),
        ("adapter", "lorra", "adapter: unknown type 'lorra', did you mean 'lora'?"),
        ("trainer__type", "finetunes", "trainer: unknown type 'finetunes', did you mean 'finetune'?"),
        ("trainer__optimizer", "adamv", "trainer.optimizer: unknown type 'adamv', did you mean 'adam"),
        (
            "trainer__precision",
            "bf16",
            "trainer.precision: expected 'auto', 'float32', 'bfloat16' or 'float16', got 'bf16'",
        ),
        ("model_type", "ecd", "model_type: expected 'llm', got 'ecd'"),
        (
            "output_features__0__decoder",
            {"type": "text_parser"},
            "output_features[0].decoder.type: expected 'text_extractor', got 'text_parser'",
        ),
    ],
)
def test_wrong_values(config: Change, path: str, value: object, said: str) -> None:
    found = faults(config(**{path: value}))
    assert len(found) == 1, found
    assert found[0].startswith(f"config: {said}")


def test_broken_yaml_names_line_and_column(tmp_path: Path) -> None:
    path = written(tmp_path, "model_type: llm\nbase_model: [x\ntrainer: y\n")
    assert faults(path)[0].startswith(f"{path}:3:")


def test_duplicate_key_beside_other_faults(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "trainer: {type: none}\ntrainer: {type: none, epoch: 1}\n")
    assert faults(path) == [
        f"{path}:6: trainer: stands twice (first in line 5)",
        f"{path}:6: trainer.epoch: unknown key, did you mean 'epochs'?",
    ]


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())
    assert load(path).config.base_model == "fettle:pocket"


def test_not_utf8(tmp_path: Path) -> None:
    path = written(tmp_path, b"model_type: llm\nbase_model: caf\xe9\n")
    assert faults(path) == [f"{path}: is not UTF-8 text (byte 31)"]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "just words\n"])
def test_no_mapping(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert faults(path) == [f"{path}: expected keys and values such as `model_type: llm`"]


def test_missing_file_folder_and_long_name(tmp_path: Path) -> None:
    for source, said in (
        (tmp_path / "no.yaml", "does not exist"),
        (tmp_path, "is a folder"),
        ("a" * 5000, "does not exist"),
        ("nul\0", "does not exist"),
    ):
        with pytest.raises(MissingFileError, match=said):
            load(source)


def test_giant_file_is_not_read_whole(tmp_path: Path) -> None:
    path = written(tmp_path, b"x" * 5_000_000)
    assert "too large for a config" in faults(path)[0]


def test_short_spellings(config: Change) -> None:
    data = config(
        adapter="lora", trainer__optimizer="adamw", preprocessing__split="random", backend="local", dataset="rows.csv"
    )
    long = config(
        adapter={"type": "lora"},
        trainer__optimizer={"type": "adamw"},
        preprocessing__split={"type": "random"},
        backend={"type": "local"},
        dataset={"path": "rows.csv"},
    )
    assert load(data).config == load(long).config
    assert load(data).config.adapter.r == 8


def test_older_spellings(config: Change) -> None:
    data = config(adapters=None, model_name="fettle:pocket")
    del data["base_model"]
    assert load(data).config == load(config()).config
    said = faults(config(model_parameters__rope_scaling={"type": "dynamic", "factor": 2.0}))
    assert said == ["config: model_parameters.rope_scaling: not available yet"]
    assert faults(config(model_parameters__rope_scaling={"type": "dynamical"}))[1].startswith(
        "config: model_parameters.rope_scaling.rope_type: expected 'linear'"
    )


def test_both_spellings_of_one_key(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "model_name: other\n")
    assert faults(path) == [f"{path}:5: model_name: means the same as base_model; give one of them"]
    assert load(written(tmp_path, HEAD), ["model_name=other"]).config.base_model == "other"


def test_overrides(config: Change) -> None:
    loaded = load(
        config(),
        [
            "trainer.learning_rate=2e-4",
            "adapter=lora",
            "adapter.r=16",
            "input_features[0].column=q",
            "trainer.optimizer.betas=[0.8, 0.9]",
            "trainer.optimizer.type=adam",
            "prompt.template='{question} = ?'",
            "dataset.path=no",
        ],
    )
    made = loaded.config
    assert made.trainer.learning_rate == 2e-4
    assert made.adapter.r == 16
    assert made.input_features[0].column == "q"
    assert made.trainer.optimizer.type == "adam"
    assert made.trainer.optimizer.betas == [0.8, 0.9]
    assert made.dataset.path == "no"


def test_override_of_a_short_spelling(config: Change) -> None:
    assert load(config(adapter="lora"), ["adapter.r=4"]).config.adapter.r == 4


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epochs", "command line: trainer.epochs: expected key=value, such as trainer.epochs=3"),
        ("=3", "command line: =3: expected key=value, such as trainer.epochs=3"),
        ("trainer.epoch=3", "command line: trainer.epoch: unknown key, did you mean 'epochs'?"),
        ("trainer.epochs=x", "command line: trainer.epochs: expected a whole number, got 'x'"),
        (
            "input_features.1.name=x",
            "command line: input_features.1.name: there is no item 1 in input_features, which has 1",
        ),
        (
            "input_features.first.name=x",
            "command line: input_features.first.name: there is no item first in input_features, which has 1",
        ),
        ("model_type.x=1", "command line: model_type.x: model_type is 'llm', not a section"),
        ("trainer.epochs=[1", "command line: trainer.epochs: this is not valid YAML: "),
        ("trainer={type: none, type: finetune}", "command line: trainer: type stands twice"),
    ],
)
def test_bad_overrides(config: Change, override: str, said: str) -> None:
    found = faults(config(), override)
    assert len(found) == 1, found
    assert found[0].startswith(said)


def test_faults_below_an_overridden_section_are_the_command_lines(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "trainer:\n  type: finetune\n  epochs: 3\n")
    assert faults(path, "trainer={type: finetune, epochs: x}") == [
        "command line: trainer.epochs: expected a whole number, got 'x'"
    ]


def test_the_users_text_is_kept_word_for_word(tmp_path: Path) -> None:
    text = "# mine\n" + HEAD
    loaded = load(written(tmp_path, text), ["generation.top_k=5"])
    assert loaded.text == text
    assert loaded.folder == tmp_path


def test_a_dict_is_left_as_it_was(config: Change) -> None:
    data = config(adapter="lora")
    before = copy.deepcopy(data)
    load(data, ["trainer.epochs=7"])
    assert data == before


def test_a_dict_with_what_no_yaml_can_hold(config: Change) -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    for value in (object(), Path("x"), lambda: 0, deep):
        assert load_fails(config(prompt__task=value))


def load_fails(data: Any) -> bool:
    with pytest.raises(FettleError):
        load(data)
    return True


ROUND_TRIPS = [
    {},
    {"adapter": "lora", "trainer__optimizer": "adam", "preprocessing__split": {"type": "fixed"}},
    {"trainer__type": "none"},
    {"trainer__optimizer": {"type": "schedule_free_adamw"}, "trainer__learning_rate_scheduler": {"decay": None}},
    {"trainer__gradient_clipping": None, "generation__eos_token_id": [1, 2], "model_parameters": {}},
    {
        "adapter": {
            "type": "lora",
            "target_modules": ["q_proj"],
            "rank_pattern": {"a": 2},
            "layer_replication": [[0, 1]],
        }
    },
]


@pytest.mark.parametrize("changes", ROUND_TRIPS)
def test_the_filled_config_loads_as_the_same_config(config: Change, changes: dict[str, Any]) -> None:
    first = load(config(**changes))
    again = load(filled_text(first.config, {}))
    assert again.config == first.config
    assert again.warnings == ()


NUMERIC_NAMES = {
    "input_features__0__name": "2e-4",
    "output_features__0__name": "010",
    "prompt__template": "{2e-4}: \u2028#",
}


def test_the_filled_config_keeps_texts_that_look_like_numbers(config: Change) -> None:
    first = load(config(**NUMERIC_NAMES))
    assert load(filled_text(first.config, {})).config == first.config


@pytest.mark.parametrize("changes", [*ROUND_TRIPS, NUMERIC_NAMES])
def test_the_text_kept_of_a_dict_loads_as_the_same_config(config: Change, changes: dict[str, Any]) -> None:
    first = load(config(**changes))
    assert load(first.text).config == first.config


def test_filled_autos_load(config: Change) -> None:
    text = filled_text(load(config()).config, {"trainer.learning_rate": 2e-05, "trainer.effective_batch_size": 8})
    assert load(text).config.trainer.learning_rate == 2e-05
