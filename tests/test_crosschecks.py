"""The rules between keys, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fettle.config import load
from tests.conftest import faults

Change = Callable[..., dict[str, Any]]


RULES: list[tuple[dict[str, Any], str]] = [
    ({"output_features__0__name": "question"}, "input_features[0].name: the name 'question' is used twice"),
    (
        {"input_features": [{"name": "a", "type": "text"}, {"name": "b", "type": "text"}]},
        "input_features: a language model has exactly one, got 2",
    ),
    ({"input_features": []}, "input_features: missing; name the column as well"),
    ({"output_features": []}, "output_features: missing; name the column as well"),
    (
        {"output_features": [], "input_features": [], "dataset__format": "columns"},
        "input_features: missing; dataset.format: columns needs one",
    ),
    ({"input_features__0__active": False}, "input_features[0].active: the only feature of its side cannot be inactive"),
    (
        {"input_features__0__tied": "answr"},
        "input_features[0].tied: there is no feature 'answr', did you mean 'answer'?",
    ),
    ({"dataset__path": "a", "dataset__training_set": "b"}, "dataset.training_set: give either path"),
    ({"dataset__validation_set": "a"}, "dataset.validation_set: needs training_set beside it"),
    ({"dataset__path": "x", "dataset__test_set": "a"}, "dataset.test_set: needs training_set beside it"),
    (
        {"dataset__format": "messages", "prompt__template": "{question}"},
        "prompt.template: conversations are rendered by the chat template",
    ),
    (
        {"dataset__format": "messages", "prompt__task": "x"},
        "prompt.task: conversations are rendered by the chat template",
    ),
    ({"preprocessing__sample_ratio": 0.5, "preprocessing__sample_size": 3}, "preprocessing.sample_size: give either"),
    ({"preprocessing__oversample_minority": 0.5}, "preprocessing.oversample_minority: needs a binary output"),
    ({"preprocessing__undersample_majority": 0.5}, "preprocessing.undersample_majority: needs a binary output"),
    (
        {"preprocessing__split": {"type": "random", "probabilities": [0.5, 0.2, 0.2]}},
        "preprocessing.split.probabilities: must add up to 1, not 0.9",
    ),
    (
        {"preprocessing__split": {"type": "hash", "column": "c", "probabilities": [0.0, 0.5, 0.5]}},
        "preprocessing.split.probabilities: leave no row to train on",
    ),
    ({"prompt__template": "{question"}, "prompt.template: "),
    ({"prompt__template": "{question} {}"}, "prompt.template: the template has an empty placeholder"),
    (
        {"prompt__template": "{question.__class__}"},
        "prompt.template: the placeholder {question.__class__} may only name a column",
    ),
    ({"prompt__template": "{question[0]}"}, "prompt.template: the placeholder {question[0]} may only name a column"),
    ({"prompt__template": "{question!r}"}, "prompt.template: the placeholder {question!r} may only name a column"),
    (
        {"prompt__template": "{question:99999}"},
        "prompt.template: the placeholder {question:99999} has a format other than a number's",
    ),
    (
        {"prompt__template": "{question:999999f}"},
        "prompt.template: the placeholder {question:999999f} has a format other than a number's",
    ),
    (
        {"prompt__template": "{question:.999f}"},
        "prompt.template: the placeholder {question:.999f} has a format other than a number's",
    ),
    ({"prompt__template": "{question:{answer}}"}, "prompt.template: the placeholder {question:{answer}} has a format"),
    ({"prompt__template": "{question} {answer}"}, "prompt.template: shows the model the output column {answer}"),
    ({"prompt__template": "{q} {answer}", "output_features__0__column": "reply"}, ""),
    (
        {"prompt__template": "{reply}", "output_features__0__column": "reply"},
        "prompt.template: shows the model the output column {reply}",
    ),
    (
        {
            "prompt__template": "{instruction} {output}",
            "input_features": [],
            "output_features": [],
            "dataset__format": "alpaca",
        },
        "prompt.template: shows the model the output column {output}",
    ),
    (
        {"prompt__template": "{__sampel__}"},
        "prompt.template: unknown placeholder {__sampel__}, did you mean '__sample__'?",
    ),
    (
        {"prompt__template": "no column"},
        "prompt.template: names no column; at least one {column} or {__sample__} is needed",
    ),
    (
        {"prompt__template": "{question}", "prompt__task": "x"},
        "prompt.template: needs {__task__}, because prompt.task is set",
    ),
    ({"prompt__template": "{question}{__task__}"}, "prompt.template: has {__task__}, but prompt.task is not set"),
    (
        {"prompt__template": "{question}{__context__}"},
        "prompt.template: has {__context__}, but prompt.retrieval is not set",
    ),
    (
        {"trainer__checkpoints_per_epoch": 1, "trainer__steps_per_checkpoint": 2},
        "trainer.steps_per_checkpoint: give either",
    ),
    (
        {"trainer__validation_metric": "los"},
        "trainer.validation_metric: expected one of loss, perplexity, next_token_accuracy, got 'los', did you mean 'loss'?",
    ),
    (
        {"trainer__validation_field": "question"},
        "trainer.validation_field: expected combined or the output's name, got 'question'",
    ),
    (
        {"trainer__validation_field": "combined", "trainer__validation_metric": "perplexity"},
        "trainer.validation_metric: combined has only the metric loss",
    ),
    (
        {"trainer__effective_batch_size": 8, "trainer__batch_size": 3},
        "trainer.effective_batch_size: 8 cannot be divided by batch_size 3",
    ),
    (
        {"trainer__effective_batch_size": 8, "trainer__gradient_accumulation_steps": 3},
        "trainer.effective_batch_size: 8 cannot be divided by gradient_accumulation_steps 3",
    ),
    (
        {"trainer__effective_batch_size": 8, "trainer__batch_size": 2, "trainer__gradient_accumulation_steps": 2},
        "trainer.effective_batch_size: 8 is not batch_size 2 * gradient_accumulation_steps 2",
    ),
    ({"trainer__effective_batch_size": 256}, "trainer.effective_batch_size: 256 is more than max_batch_size 128"),
    (
        {"trainer__use_mixed_precision": True, "trainer__precision": "float32"},
        "trainer.use_mixed_precision: give either",
    ),
    ({"trainer__optimizer": {"type": "sgd_8bit"}}, "trainer.optimizer.momentum: sgd_8bit needs a momentum above 0"),
    (
        {"trainer__optimizer": {"type": "sgd", "nesterov": True}},
        "trainer.optimizer.nesterov: needs a momentum above 0 and no dampening",
    ),
    (
        {"trainer__optimizer": {"type": "schedule_free_adamw"}},
        "trainer.learning_rate_scheduler.decay: schedule_free_adamw needs decay: null",
    ),
    (
        {"trainer__learning_rate_scheduler": {"decay": "wsd", "wsd_decay_fraction": 0.5}},
        "trainer.learning_rate_scheduler.wsd_stable_fraction: the three wsd fractions must add up to 1, not 1.4",
    ),
    (
        {"trainer__learning_rate_scheduler": {"warmup_evaluations": 1, "warmup_fraction": 0.1}},
        "trainer.learning_rate_scheduler.warmup_evaluations: give either",
    ),
    (
        {"trainer__learning_rate_scheduler": {"reduce_eval_metric": "bleu"}},
        "trainer.learning_rate_scheduler.reduce_eval_metric: expected one of loss",
    ),
    (
        {"trainer__increase_batch_size_eval_metric": "bleu"},
        "trainer.increase_batch_size_eval_metric: expected one of loss",
    ),
    (
        {"trainer__type": "none", "adapter": "lora"},
        "adapter: needs trainer.type: finetune (or pretrained_adapter_weights)",
    ),
    (
        {"adapter": {"type": "lora", "use_dora": True, "init_lora_weights": "pissa"}},
        "adapter.init_lora_weights: pissa cannot be combined with use_dora",
    ),
    (
        {"generation__min_new_tokens": 5, "generation__max_new_tokens": 4},
        "generation.min_new_tokens: 5 is more than max_new_tokens 4",
    ),
]


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
