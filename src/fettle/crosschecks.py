"""The rules between keys: what pydantic cannot see because it looks at one key at a time.

`run` yields (path, message) for each broken rule. Rules only check; they never change a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fettle.errors import nearest
from fettle.model.adapter_config import LoraFamily
from fettle.prompt.config import RESERVED, placeholders
from fettle.section import Section
from fettle.training.config import PretrainTrainer, TrainingSection
from fettle.yamlfile import Path

if TYPE_CHECKING:
    from fettle.config import Config

Faults = Iterator[tuple[Path, str]]

TEXT_METRICS = ("loss", "perplexity", "next_token_accuracy")


def run(config: Config, raw: Mapping[str, Any]) -> Faults:
    """Every broken rule."""
    yield from _features(config)
    yield from _dataset(config)
    yield from _documents(config)
    yield from _preprocessing(config)
    yield from _prompt(config)
    yield from _trainer(config)
    yield from _schedule(config)
    yield from _adapter(config)
    yield from _generation(config)
    if config.adapter is not None and raw.get("adapters") is not None:
        yield ("adapters",), "give either adapter or adapters"


# Keys that act only under one value of another key: learning-rate shapes, and sampling.
_SHAPES = {
    "decay_rate": ("exponential",), "decay_steps": ("exponential",), "staircase": ("exponential",),
    "t_0": ("cosine",), "t_mult": ("cosine",), "eta_min": ("cosine",),
    "max_lr": ("one_cycle",), "pct_start": ("one_cycle",), "div_factor": ("one_cycle",), "final_div_factor": ("one_cycle",),
    "inverse_sqrt_warmup_steps": ("inverse_sqrt",), "polynomial_power": ("polynomial",), "polynomial_end_lr": ("polynomial",),
    "wsd_warmup_fraction": ("wsd",), "wsd_stable_fraction": ("wsd",), "wsd_decay_fraction": ("wsd",),
    "warmup_fraction": (None, "linear", "exponential", "cosine", "polynomial"),
    "warmup_evaluations": (None, "linear", "exponential", "cosine", "polynomial"),
}  # fmt: skip
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def idle(config: Config) -> Faults:
    """(path, why) of keys that were set but cannot act beside the others."""
    trainer = config.trainer
    if isinstance(trainer, TrainingSection):
        schedule = trainer.learning_rate_scheduler
        for key in sorted(_changed(schedule) & _SHAPES.keys()):
            if schedule.decay not in _SHAPES[key]:
                yield (
                    ("trainer", "learning_rate_scheduler", key),
                    f"has no effect with decay: {schedule.decay or 'null'}",
                )
        if (
            trainer.optimizer.type == "adafactor"
            and trainer.optimizer.relative_step
            and "learning_rate" in _changed(trainer)
        ):
            yield ("trainer", "learning_rate"), "has no effect with adafactor's relative_step: true"
        if trainer.optimizer.type == "lbfgs" and "gradient_clipping" in _changed(trainer):
            yield ("trainer", "gradient_clipping"), "has no effect with the optimizer lbfgs"
        if trainer.train_steps is not None and "epochs" in _changed(trainer):
            yield ("trainer", "epochs"), "has no effect, because train_steps is given"
        if "profiler" in _changed(trainer) and not trainer.enable_profiling:
            yield ("trainer", "profiler"), "has no effect without enable_profiling: true"
        if "regularization_type" in _changed(trainer) and not trainer.regularization_lambda:
            yield ("trainer", "regularization_type"), "has no effect while regularization_lambda is 0"
    else:
        for key in sorted(
            _changed(trainer) - {"type", "skip_all_evaluation", "packing", "packing_max_sequences_per_pack"}
        ):
            yield ("trainer", key), "has no effect with trainer.type: none"
    if not config.generation.do_sample:
        for key in sorted(_changed(config.generation) & set(_SAMPLING)):
            yield ("generation", key), "has no effect with do_sample: false"
    if config.dataset.format in ("columns", "alpaca") and "messages_column" in _changed(config.dataset):
        yield ("dataset", "messages_column"), f"has no effect with format: {config.dataset.format}"
    yield from _idle_for_text(config)
    if config.dataset.format == "messages":
        for key in ("input_features", "output_features"):
            if getattr(config, key):
                yield (
                    (key,),
                    "has no effect on conversations beyond naming the predictions"
                    if key[0] == "o"
                    else "has no effect on conversations",
                )


def _idle_for_text(config: Config) -> Faults:
    """Keys of prompts and rows beside plain text, and of plain text beside rows."""
    pretrain = isinstance(config.trainer, PretrainTrainer)
    if pretrain or config.dataset.format == "text":
        for key in sorted(_changed(config.prompt)):
            yield ("prompt", key), "has no effect on plain text"
        if "overlong_rows" in _changed(config.preprocessing):
            yield (
                ("preprocessing", "overlong_rows"),
                "has no effect on plain text: what is longer goes on in the next block",
            )
    elif config.trainer.type != "none":
        for key in sorted(_changed(config.dataset) & {"text_column", "document_separator"}):
            yield ("dataset", key), f"has no effect with trainer.type: {config.trainer.type}"


def _changed(section: Section) -> set[str]:
    """The keys of a section that are set to something other than their default."""
    defaults = type(section).model_fields
    return {
        key
        for key in section.model_fields_set
        if getattr(section, key) != defaults[key].get_default(call_default_factory=True, validated_data={})
    }


def _features(config: Config) -> Faults:
    names = [feature.name for feature in (*config.input_features, *config.output_features)]
    for side, features in (("input_features", config.input_features), ("output_features", config.output_features)):
        if len(features) > 1:
            yield (
                (side,),
                f"a language model has exactly one, got {len(features)}; combine columns with prompt.template",
            )
        if not features and config.dataset.format == "columns":
            yield (side,), "missing; dataset.format: columns needs one"
        for index, feature in enumerate(features):
            if not feature.active:
                yield (side, index, "active"), "the only feature of its side cannot be inactive"
            if names.count(feature.name) > 1:
                yield (side, index, "name"), f"the name {feature.name!r} is used twice"
    for index, feature in enumerate(config.input_features):
        if feature.tied is not None and feature.tied not in names:
            yield (
                ("input_features", index, "tied"),
                f"there is no feature {feature.tied!r}{nearest(feature.tied, names)}",
            )
    if isinstance(config.trainer, PretrainTrainer):
        return
    if bool(config.input_features) != bool(config.output_features) and config.dataset.format in ("auto", "columns"):
        missing = "output_features" if config.input_features else "input_features"
        yield (missing,), "missing; name the column as well (or leave both out for Alpaca and messages data)"


def _dataset(config: Config) -> Faults:
    dataset = config.dataset
    if dataset.path is not None and dataset.training_set is not None:
        yield ("dataset", "training_set"), "give either path (divided by preprocessing.split) or training_set"
    for name in ("validation_set", "test_set"):
        if getattr(dataset, name) is not None and dataset.training_set is None:
            yield ("dataset", name), "needs training_set beside it"
    for name in ("template", "task"):
        if dataset.format == "messages" and getattr(config.prompt, name) is not None:
            yield (
                ("prompt", name),
                "conversations are rendered by the chat template; remove it or use another dataset.format",
            )


def _documents(config: Config) -> Faults:
    """Plain text has its own objective, and no features."""
    pretrain, how = isinstance(config.trainer, PretrainTrainer), config.dataset.format
    if pretrain and how not in ("auto", "text"):
        yield ("dataset", "format"), f"trainer.type: pretrain reads plain text (format: text), not {how}"
    if how == "text" and not pretrain and config.trainer.type != "none":
        yield (
            ("dataset", "format"),
            f"text has no response to learn from with trainer.type: {config.trainer.type}; use pretrain",
        )
    for key in ("input_features", "output_features"):
        if pretrain and getattr(config, key):
            yield (key,), "has no place in trainer.type: pretrain; dataset.text_column names the column to read"


def _preprocessing(config: Config) -> Faults:
    part = config.preprocessing
    if part.sample_ratio < 1 and part.sample_size is not None:
        yield ("preprocessing", "sample_size"), "give either sample_ratio or sample_size"
    for name in ("oversample_minority", "undersample_majority"):
        if getattr(part, name) is not None:
            yield ("preprocessing", name), "needs a binary output, which a language model does not have"
    if part.split.type != "fixed" and abs(sum(part.split.probabilities) - 1) > 1e-6:
        yield ("preprocessing", "split", "probabilities"), f"must add up to 1, not {sum(part.split.probabilities):g}"
    if part.split.type != "fixed" and part.split.probabilities[0] == 0 and config.trainer.type != "none":
        yield ("preprocessing", "split", "probabilities"), "leave no row to train on"


def _prompt(config: Config) -> Faults:
    prompt = config.prompt
    if prompt.chat_template is not None and prompt.use_chat_template is False:
        yield ("prompt", "chat_template"), "cannot act with use_chat_template: false; remove one of the two"
    if prompt.template is None:
        return
    at: Path = ("prompt", "template")
    try:
        names = [name for name, _ in placeholders(prompt.template)]
    except ValueError as error:
        yield at, str(error)
        return
    outputs = {feature.column or feature.name for feature in config.output_features} or {"output"}
    for name in names:
        if name in outputs:
            yield at, f"shows the model the output column {{{name}}}, which it is to write"
        if name.startswith("__") and name not in RESERVED:
            yield at, f"unknown placeholder {{{name}}}{nearest(name, RESERVED)}"
    if not any(name == "__sample__" or name not in RESERVED for name in names):
        yield at, "names no column; at least one {column} or {__sample__} is needed"
    if prompt.task is not None and "__task__" not in names:
        yield at, "needs {__task__}, because prompt.task is set"
    if prompt.task is None and "__task__" in names:
        yield at, "has {__task__}, but prompt.task is not set"
    if "__context__" in names and prompt.retrieval.type is None:
        yield at, "has {__context__}, but prompt.retrieval is not set"


def _trainer(config: Config) -> Faults:
    trainer = config.trainer
    outputs = [feature.name for feature in config.output_features]
    if trainer.checkpoints_per_epoch and trainer.steps_per_checkpoint:
        yield ("trainer", "steps_per_checkpoint"), "give either checkpoints_per_epoch or steps_per_checkpoint"
    metric = trainer.validation_metric
    if metric is not None and metric not in TEXT_METRICS:
        yield (
            ("trainer", "validation_metric"),
            f"expected one of {', '.join(TEXT_METRICS)}, got {metric!r}{nearest(metric, TEXT_METRICS)}",
        )
    if trainer.validation_field not in (None, "combined", *outputs):
        yield (
            ("trainer", "validation_field"),
            f"expected combined or the output's name, got {trainer.validation_field!r}",
        )
    if trainer.validation_field == "combined" and metric not in (None, "loss"):
        yield ("trainer", "validation_metric"), "combined has only the metric loss"
    if isinstance(trainer, TrainingSection):
        yield from _batches(trainer)
        yield from _modes(config, trainer)
        yield from _plateaus(trainer)


def _batches(trainer: TrainingSection) -> Faults:
    effective, batch, steps = trainer.effective_batch_size, trainer.batch_size, trainer.gradient_accumulation_steps
    at = ("trainer", "effective_batch_size")
    if effective == "auto":
        return
    for name, value in (("batch_size", batch), ("gradient_accumulation_steps", steps)):
        if value != "auto" and effective % value:
            yield at, f"{effective} cannot be divided by {name} {value}"
    if batch != "auto" and steps != "auto" and effective != batch * steps:
        yield at, f"{effective} is not batch_size {batch} * gradient_accumulation_steps {steps}"
    if trainer.max_batch_size is not None and effective > trainer.max_batch_size:
        yield at, f"{effective} is more than max_batch_size {trainer.max_batch_size}"


def _modes(config: Config, trainer: TrainingSection) -> Faults:
    if trainer.use_mixed_precision is not None and trainer.precision != "auto":
        yield ("trainer", "use_mixed_precision"), "give either use_mixed_precision or precision"
    if trainer.optimizer.type == "sgd_8bit" and trainer.optimizer.momentum == 0:
        yield ("trainer", "optimizer", "momentum"), "sgd_8bit needs a momentum above 0"
    if (
        trainer.optimizer.type == "sgd"
        and trainer.optimizer.nesterov
        and not (trainer.optimizer.momentum and not trainer.optimizer.dampening)
    ):
        yield ("trainer", "optimizer", "nesterov"), "needs a momentum above 0 and no dampening"
    if trainer.optimizer.type == "adafactor" and trainer.optimizer.relative_step and trainer.optimizer.lr is not None:
        yield ("trainer", "optimizer", "lr"), "cannot be given together with relative_step"
    for key in ("block_wise", "percentile_clipping"):
        field = type(trainer.optimizer).model_fields.get(key)
        if field is not None and getattr(trainer.optimizer, key) != field.default:
            yield ("trainer", "optimizer", key), "bitsandbytes no longer has this choice; remove it"
    plus = config.adapter.loraplus_lr_ratio if isinstance(config.adapter, LoraFamily) else None
    if plus is not None and trainer.optimizer.type in ("lbfgs", "muon", "adafactor"):
        yield ("adapter", "loraplus_lr_ratio"), f"cannot be combined with the optimizer {trainer.optimizer.type}"
    if trainer.optimizer.type == "schedule_free_adamw" and trainer.learning_rate_scheduler.decay is not None:
        yield ("trainer", "learning_rate_scheduler", "decay"), "schedule_free_adamw needs decay: null"


def _schedule(config: Config) -> Faults:
    if not isinstance(config.trainer, TrainingSection):
        return
    at = ("trainer", "learning_rate_scheduler")
    schedule = config.trainer.learning_rate_scheduler
    shares = schedule.wsd_warmup_fraction + schedule.wsd_stable_fraction + schedule.wsd_decay_fraction
    if schedule.decay == "wsd" and abs(shares - 1) > 1e-6:
        yield (*at, "wsd_stable_fraction"), f"the three wsd fractions must add up to 1, not {shares:g}"
    if schedule.warmup_evaluations and "warmup_fraction" in schedule.model_fields_set:
        yield (*at, "warmup_evaluations"), "give either warmup_evaluations or warmup_fraction"
    for name, metric in (
        ("reduce_eval_metric", schedule.reduce_eval_metric),
        ("increase_batch_size_eval_metric", config.trainer.increase_batch_size_eval_metric),
    ):
        if metric not in TEXT_METRICS:
            owner = at if name == "reduce_eval_metric" else ("trainer",)
            yield (
                (*owner, name),
                f"expected one of {', '.join(TEXT_METRICS)}, got {metric!r}{nearest(metric, TEXT_METRICS)}",
            )


def _plateaus(trainer: TrainingSection) -> Faults:
    """Training is watched step by step, and a step knows its loss only."""
    schedule = trainer.learning_rate_scheduler
    rate = (schedule.reduce_on_plateau, schedule.reduce_eval_split, schedule.reduce_eval_metric)
    growth = (
        trainer.increase_batch_size_on_plateau,
        trainer.increase_batch_size_eval_split,
        trainer.increase_batch_size_eval_metric,
    )
    for path, key, (count, split, metric) in (
        (("trainer", "learning_rate_scheduler"), "reduce_eval", rate),
        (("trainer",), "increase_batch_size_eval", growth),
    ):
        if count and split == "training" and metric != "loss":
            said = "the training split is watched by its loss only; watch validation for other metrics"
            yield (*path, f"{key}_metric"), said
        if count and split == "test":
            yield (*path, f"{key}_split"), "the test split is not looked at during training"


def _adapter(config: Config) -> Faults:
    adapter = config.adapter
    if adapter is None:
        return
    if config.trainer.type == "none" and adapter.pretrained_adapter_weights is None:
        yield ("adapter",), "needs trainer.type: finetune (or pretrained_adapter_weights)"
    if isinstance(adapter, LoraFamily) and isinstance(adapter.target_modules, str):
        try:
            re.compile(adapter.target_modules)
        except re.error as error:
            yield ("adapter", "target_modules"), f"not a regular expression: {error}"
    if isinstance(adapter, LoraFamily):
        for name in ("eva", "loftq"):
            given = getattr(adapter, f"{name}_config") is not None
            if given and adapter.init_lora_weights != name:
                yield ("adapter", f"{name}_config"), f"needs init_lora_weights: {name}"
        if adapter.use_dora and adapter.init_lora_weights in ("pissa", "olora", "orthogonal"):
            yield ("adapter", "init_lora_weights"), f"{adapter.init_lora_weights} cannot be combined with use_dora"


def _generation(config: Config) -> Faults:
    part = config.generation
    if (
        part.min_new_tokens is not None
        and part.max_new_tokens is not None
        and part.min_new_tokens > part.max_new_tokens
    ):
        yield (
            ("generation", "min_new_tokens"),
            f"{part.min_new_tokens} is more than max_new_tokens {part.max_new_tokens}",
        )
    if part.max_length is not None and part.min_length > part.max_length:
        yield ("generation", "min_length"), f"{part.min_length} is more than max_length {part.max_length}"
