"""The config: every fault at once and in its place, every spelling, every rule, and nothing that crashes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_config

from fettle import availability
from fettle.config import Config, Loaded, load
from fettle.errors import ConfigError, FettleError, MissingFileError
from fettle.run import filled_text
from fettle.section import docs, walk
from fettle.yamlfile import dump

Change = Callable[..., dict[str, Any]]
HEAD = """model_type: llm
base_model: fettle:pocket
input_features: [{name: question, type: text}]
output_features: [{name: answer, type: text}]
"""


def faults(source: Any, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    return [str(fault) for fault in caught.value.faults]


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
        ("preprocessing__split", {"column": "x"}, "preprocessing.split: `type` is missing; one of random, fixed, stratify, datetime, hash"),
        ("preprocessing__split", {"type": "random", "probabilities": [0.5, 0.5]}, "preprocessing.split.probabilities: expected: "),
        ("preprocessing__sample_ratio", 1.5, "preprocessing.sample_ratio: expected a number <= 1, got 1.5"),
        ("adapter", {"type": "lora", "r": 0}, "adapter.r: expected a number >= 1, got 0"),
        ("adapter", "lorra", "adapter: unknown type 'lorra', did you mean 'lora'?"),
        ("trainer__type", "finetunes", "trainer: unknown type 'finetunes', did you mean 'finetune'?"),
        ("trainer__optimizer", "adamv", "trainer.optimizer: unknown type 'adamv', did you mean 'adam"),
        ("trainer__precision", "bf16", "trainer.precision: expected 'auto', 'float32', 'bfloat16' or 'float16', got 'bf16'"),
        ("model_type", "ecd", "model_type: expected 'llm', got 'ecd'"),
        ("output_features__0__decoder", {"type": "text_parser"}, "output_features[0].decoder.type: expected 'text_extractor', got 'text_parser'"),
    ],
)  # fmt: skip
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
        adapter={"type": "lora"}, trainer__optimizer={"type": "adamw"}, preprocessing__split={"type": "random"},
        backend={"type": "local"}, dataset={"path": "rows.csv"},
    )  # fmt: skip
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
        ["trainer.learning_rate=2e-4", "adapter=lora", "adapter.r=16", "input_features[0].column=q",
         "trainer.optimizer.betas=[0.8, 0.9]", "trainer.optimizer.type=adam", "prompt.template='{question} = ?'", "dataset.path=no"],
    )  # fmt: skip
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
        ("input_features.1.name=x", "command line: input_features.1.name: there is no item 1 in input_features, which has 1"),
        ("input_features.first.name=x", "command line: input_features.first.name: there is no item first in input_features, which has 1"),
        ("model_type.x=1", "command line: model_type.x: model_type is 'llm', not a section"),
        ("trainer.epochs=[1", "command line: trainer.epochs: this is not valid YAML: "),
        ("trainer={type: none, type: finetune}", "command line: trainer: type stands twice"),
    ],
)  # fmt: skip
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


RULES: list[tuple[dict[str, Any], str]] = [
    ({"output_features__0__name": "question"}, "input_features[0].name: the name 'question' is used twice"),
    ({"input_features": [{"name": "a", "type": "text"}, {"name": "b", "type": "text"}]}, "input_features: a language model has exactly one, got 2"),
    ({"input_features": []}, "input_features: missing; name the column as well"),
    ({"output_features": []}, "output_features: missing; name the column as well"),
    ({"output_features": [], "input_features": [], "dataset__format": "columns"}, "input_features: missing; dataset.format: columns needs one"),
    ({"input_features__0__active": False}, "input_features[0].active: the only feature of its side cannot be inactive"),
    ({"input_features__0__tied": "answr"}, "input_features[0].tied: there is no feature 'answr', did you mean 'answer'?"),
    ({"dataset__path": "a", "dataset__training_set": "b"}, "dataset.training_set: give either path"),
    ({"dataset__validation_set": "a"}, "dataset.validation_set: needs training_set beside it"),
    ({"dataset__path": "x", "dataset__test_set": "a"}, "dataset.test_set: needs training_set beside it"),
    ({"dataset__format": "messages", "prompt__template": "{question}"}, "prompt.template: conversations are rendered by the chat template"),
    ({"dataset__format": "messages", "prompt__task": "x"}, "prompt.task: conversations are rendered by the chat template"),
    ({"preprocessing__sample_ratio": 0.5, "preprocessing__sample_size": 3}, "preprocessing.sample_size: give either"),
    ({"preprocessing__oversample_minority": 0.5}, "preprocessing.oversample_minority: needs a binary output"),
    ({"preprocessing__undersample_majority": 0.5}, "preprocessing.undersample_majority: needs a binary output"),
    ({"preprocessing__split": {"type": "random", "probabilities": [0.5, 0.2, 0.2]}}, "preprocessing.split.probabilities: must add up to 1, not 0.9"),
    ({"preprocessing__split": {"type": "hash", "column": "c", "probabilities": [0.0, 0.5, 0.5]}}, "preprocessing.split.probabilities: leave no row to train on"),
    ({"prompt__template": "{question"}, "prompt.template: "),
    ({"prompt__template": "{question} {}"}, "prompt.template: the template has an empty placeholder"),
    ({"prompt__template": "{question.__class__}"}, "prompt.template: the placeholder {question.__class__} may only name a column"),
    ({"prompt__template": "{question[0]}"}, "prompt.template: the placeholder {question[0]} may only name a column"),
    ({"prompt__template": "{question!r}"}, "prompt.template: the placeholder {question!r} may only name a column"),
    ({"prompt__template": "{question:99999}"}, "prompt.template: the placeholder {question:99999} has a format other than a number's"),
    ({"prompt__template": "{question:999999f}"}, "prompt.template: the placeholder {question:999999f} has a format other than a number's"),
    ({"prompt__template": "{question:.999f}"}, "prompt.template: the placeholder {question:.999f} has a format other than a number's"),
    ({"prompt__template": "{question:{answer}}"}, "prompt.template: the placeholder {question:{answer}} has a format"),
    ({"prompt__template": "{question} {answer}"}, "prompt.template: shows the model the output column {answer}"),
    ({"prompt__template": "{q} {answer}", "output_features__0__column": "reply"}, ""),
    ({"prompt__template": "{reply}", "output_features__0__column": "reply"}, "prompt.template: shows the model the output column {reply}"),
    ({"prompt__template": "{instruction} {output}", "input_features": [], "output_features": [], "dataset__format": "alpaca"}, "prompt.template: shows the model the output column {output}"),
    ({"prompt__template": "{__sampel__}"}, "prompt.template: unknown placeholder {__sampel__}, did you mean '__sample__'?"),
    ({"prompt__template": "no column"}, "prompt.template: names no column; at least one {column} or {__sample__} is needed"),
    ({"prompt__template": "{question}", "prompt__task": "x"}, "prompt.template: needs {__task__}, because prompt.task is set"),
    ({"prompt__template": "{question}{__task__}"}, "prompt.template: has {__task__}, but prompt.task is not set"),
    ({"prompt__template": "{question}{__context__}"}, "prompt.template: has {__context__}, but prompt.retrieval is not set"),
    ({"trainer__checkpoints_per_epoch": 1, "trainer__steps_per_checkpoint": 2}, "trainer.steps_per_checkpoint: give either"),
    ({"trainer__validation_metric": "los"}, "trainer.validation_metric: expected one of loss, perplexity, next_token_accuracy, token_accuracy, got 'los', did you mean 'loss'?"),
    ({"trainer__validation_field": "question"}, "trainer.validation_field: expected combined or the output's name, got 'question'"),
    ({"trainer__validation_field": "combined", "trainer__validation_metric": "perplexity"}, "trainer.validation_metric: combined has only the metric loss"),
    ({"trainer__effective_batch_size": 8, "trainer__batch_size": 3}, "trainer.effective_batch_size: 8 cannot be divided by batch_size 3"),
    ({"trainer__effective_batch_size": 8, "trainer__gradient_accumulation_steps": 3}, "trainer.effective_batch_size: 8 cannot be divided by gradient_accumulation_steps 3"),
    ({"trainer__effective_batch_size": 8, "trainer__batch_size": 2, "trainer__gradient_accumulation_steps": 2}, "trainer.effective_batch_size: 8 is not batch_size 2 * gradient_accumulation_steps 2"),
    ({"trainer__effective_batch_size": 256}, "trainer.effective_batch_size: 256 is more than max_batch_size 128"),
    ({"trainer__use_mixed_precision": True, "trainer__precision": "float32"}, "trainer.use_mixed_precision: give either"),
    ({"trainer__optimizer": {"type": "sgd_8bit"}}, "trainer.optimizer.momentum: sgd_8bit needs a momentum above 0"),
    ({"trainer__optimizer": {"type": "sgd", "nesterov": True}}, "trainer.optimizer.nesterov: needs a momentum above 0 and no dampening"),
    ({"trainer__optimizer": {"type": "schedule_free_adamw"}}, "trainer.learning_rate_scheduler.decay: schedule_free_adamw needs decay: null"),
    ({"trainer__learning_rate_scheduler": {"decay": "wsd", "wsd_decay_fraction": 0.5}}, "trainer.learning_rate_scheduler.wsd_stable_fraction: the three wsd fractions must add up to 1, not 1.4"),
    ({"trainer__learning_rate_scheduler": {"warmup_evaluations": 1, "warmup_fraction": 0.1}}, "trainer.learning_rate_scheduler.warmup_evaluations: give either"),
    ({"trainer__learning_rate_scheduler": {"reduce_eval_metric": "bleu"}}, "trainer.learning_rate_scheduler.reduce_eval_metric: expected one of loss"),
    ({"trainer__increase_batch_size_eval_metric": "bleu"}, "trainer.increase_batch_size_eval_metric: expected one of loss"),
    ({"trainer__type": "none", "adapter": "lora"}, "adapter: needs trainer.type: finetune (or pretrained_adapter_weights)"),
    ({"adapter": {"type": "lora", "use_dora": True, "init_lora_weights": "pissa"}}, "adapter.init_lora_weights: pissa cannot be combined with use_dora"),
    ({"generation__min_new_tokens": 5, "generation__max_new_tokens": 4}, "generation.min_new_tokens: 5 is more than max_new_tokens 4"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), RULES, ids=[said[:60] or "fine" for _, said in RULES])
def test_rules_between_keys(config: Change, changes: dict[str, Any], said: str) -> None:
    if not said:
        load(config(**changes))
        return
    assert any(fault.startswith(f"config: {said}") for fault in faults(config(**changes)))


@pytest.mark.parametrize("init", ["eva", "loftq"])
def test_adapter_initialisation_needs_its_choice(config: Change, init: str) -> None:
    found = faults(config(adapter={"type": "lora", f"{init}_config": {}}))
    assert f"config: adapter.{init}_config: needs init_lora_weights: {init}" in found


def test_adapter_and_adapters_exclude_each_other(config: Change) -> None:
    data = config(adapter="lora", adapters={"adapters": {"a": {"type": "lora"}}})
    assert "config: adapters: give either adapter or adapters" in faults(data)


def test_adafactor_with_its_own_rate(config: Change) -> None:
    data = config(trainer__optimizer={"type": "adafactor", "relative_step": True, "lr": 0.1})
    assert faults(data) == ["config: trainer.optimizer.lr: cannot be given together with relative_step"]


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
        data = config_with(path, value)
        try:
            load(data)
        except ConfigError as error:
            assert "not available" not in str(error)  # noqa: PT017


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
        prompt__retrieval={"type": None, "k": 0}, model_parameters={"rope_scaling": {}, "neftune_noise_alpha": 0},
        defaults={}, hyperopt=None, generation__num_beams=1,
    )  # fmt: skip
    assert load(data).warnings == ()


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


# ---- 1,000 mutations: a valid Config or a FettleError, never anything else ----

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
    {"model_type": "llm", "base_model": "fettle:pocket", "dataset": {"path": "x.jsonl", "format": "messages"},
     "trainer": {"type": "finetune"}, "prompt": {"system": "Be brief.", "retrieval": {"type": None}}},
    {"model_type": "llm", "model_name": "fettle:pocket", "adapters": {"adapters": {"a": {"type": "lora"}}, "active": "a"},
     "quantization": {"bits": 4}, "backend": "ray", "trainer": {"type": "dpo", "beta": 0.2}},
]  # fmt: skip
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 3, 10**30, 0.5, -2.5, float("inf"), float("nan"), "", "x", "auto", "lora", "finetune", "none",
    "2e-4", "{", "{a.b}", "{question}", [], {}, [1], [[1]], [None], {"type": "lora"}, {"type": None}, {"type": []}, {"type": {}},
    {"a": {"b": 1}}, [{"name": "x"}], "\u2028", "🙂", {"": 1}, {"type": "text"}, [{"type": "category", "name": "x"}],
]  # fmt: skip
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
        assert str(error)
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
