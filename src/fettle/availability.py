"""Keys of the vocabulary that Fettle refuses because their code is not there yet, and keys that cannot have an effect.

Both lists live here and nowhere else. `NOT_YET` is meant to end empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fettle.section import Section, walk
from fettle.yamlfile import Path

# Path of a key, and the values of it that do work (besides its default, and null).
NOT_YET: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("quantization", ()),
    ("adapters", ()),
    ("adapter.type", ("lora",)),
    ("adapter.pretrained_adapter_weights", ()),
    ("adapter.postprocessor.merge_adapter_into_base_model", ()),
    ("adapter.postprocessor.progressbar", ()),
    ("adapter.init_lora_weights", ("gaussian", "olora", "pissa", "orthogonal")),
    ("adapter.eva_config", ()),
    ("adapter.loftq_config", ()),
    ("model_parameters.rope_scaling", ({},)),
    ("model_parameters.neftune_noise_alpha", ()),
    ("prompt.retrieval", ({},)),
    ("output_features.type", ("text",)),
    ("output_features.loss.type", ()),
    ("trainer.type", ("none", "finetune", "pretrain")),
    ("trainer.layers_to_freeze_regex", ()),
    ("trainer.model_soup", ()),
    ("trainer.compile", ()),
    ("generation.max_length", ()),
    ("generation.min_length", ()),
    ("generation.early_stopping", ()),
    ("generation.max_time", ()),
    ("generation.num_beams", ()),
    ("generation.num_beam_groups", ()),
    ("generation.penalty_alpha", ()),
    ("generation.prompt_lookup_num_tokens", ()),
    ("generation.diversity_penalty", ()),
    ("generation.encoder_repetition_penalty", ()),
    ("generation.length_penalty", ()),
    ("generation.no_repeat_ngram_size", ()),
    ("generation.bad_words_ids", ()),
    ("generation.force_words_ids", ()),
    ("generation.renormalize_logits", ()),
    ("generation.forced_bos_token_id", ()),
    ("generation.forced_eos_token_id", ()),
    ("generation.remove_invalid_values", ()),
    ("generation.exponential_decay_length_penalty", ()),
    ("generation.suppress_tokens", ()),
    ("generation.begin_suppress_tokens", ()),
    ("generation.forced_decoder_ids", ()),
    ("generation.sequence_bias", ()),
    ("generation.guidance_scale", ()),
    ("generation.stop_strings", ()),
    ("backend.type", ("local",)),
    ("backend.credentials", ()),
    ("hyperopt", ()),
    ("defaults", ({},)),
    ("is_multimodal", ()),
    ("preset", ()),
)

_PADS_NOTHING = "nothing is padded in training"
_TABLES_ONLY = "it is for tables, not for language models"
_ONE_OUTPUT = "a language model has one output"
_BASE_TOKENIZER = "the base model's tokenizer is always used"

# Path of a key that cannot change the result, and why.
NO_EFFECT: tuple[tuple[str, str], ...] = (
    ("input_features.tied", "a language model has one input"),
    ("input_features.proc_column", "Fettle names no processed columns"),
    ("output_features.proc_column", "Fettle names no processed columns"),
    *(
        (f"{side}.preprocessing.{key}", why)
        for side in ("input_features", "output_features")
        for key, why in (
            ("pretrained_model_name_or_path", _BASE_TOKENIZER),
            ("tokenizer", _BASE_TOKENIZER),
            ("vocab_file", _BASE_TOKENIZER),
            ("sequence_length", _PADS_NOTHING),
            ("most_common", _BASE_TOKENIZER),
            ("padding_symbol", _PADS_NOTHING),
            ("unknown_symbol", _BASE_TOKENIZER),
            ("padding", _PADS_NOTHING),
            ("computed_fill_value", "it is computed anew"),
            ("ngram_size", _BASE_TOKENIZER),
            ("cache_encoder_embeddings", "it is for encoders"),
            ("compute_idf", _TABLES_ONLY),
        )
    ),
    *(
        (f"output_features.{key}", _ONE_OUTPUT)
        for key in ("reduce_input", "dependencies", "reduce_dependencies", "input_size", "num_classes")
    ),
    ("output_features.class_similarities", "it is for categories"),
    ("output_features.decoder.tokenizer", _BASE_TOKENIZER),
    ("output_features.decoder.input_size", _ONE_OUTPUT),
    ("output_features.decoder.pretrained_model_name_or_path", _BASE_TOKENIZER),
    ("output_features.decoder.vocab_file", _BASE_TOKENIZER),
    ("output_features.decoder.match_strategy", "the text is taken as it is"),
    ("trainer.base_learning_rate", "learning_rate is what counts"),
    ("trainer.bucketing_field", _PADS_NOTHING),
    ("trainer.learning_rate_scaling", "one process trains"),
    *(
        (f"trainer.{key}", _ONE_OUTPUT)
        for key in (
            "loss_balancing",
            "loss_balancing_alpha",
            "loss_balancing_lr",
            "loss_balancing_preference_vector",
            "loss_balancing_tchebycheff_weight",
        )
    ),
    *(
        (f"trainer.{key}", _TABLES_ONLY)
        for key in (
            "contrastive_pretrain_epochs",
            "contrastive_pretrain_temperature",
            "contrastive_pretrain_projection_dim",
            "contrastive_pretrain_learnable_temperature",
            "modality_dropout",
        )
    ),
    ("trainer.packing", "rows are always packed"),
    ("trainer.packing_max_sequences_per_pack", "rows are packed by tokens"),
    ("generation.bos_token_id", "the prompt's own first token is used"),
    ("ludwig_version", "Fettle reads the vocabulary of every version"),
)


def values_at(data: Any, path: tuple[str, ...], at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that stands at a path of the raw config; lists and mappings of sections fan out."""
    if not path:
        yield at, data
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from values_at(item, path, (*at, index))
    elif isinstance(data, Mapping) and path[0] in data:
        yield from values_at(data[path[0]], path[1:], (*at, path[0]))


@cache
def defaults(root: type[Section]) -> dict[str, list[object]]:
    """The default of every key, by dotted path; several where a union's arms differ."""
    found: dict[str, list[object]] = {}
    for path, _, field in walk(root):
        default = field.get_default(call_default_factory=True, validated_data={})
        found.setdefault(".".join(path), []).append(default)
    return found


def set_keys(root: type[Section], data: Any, paths: Iterator[str]) -> Iterator[tuple[str, Path, Any]]:
    """The given keys that the raw config sets to something other than their default or null."""
    known = defaults(root)
    for dotted_path in paths:
        for at, value in values_at(data, tuple(dotted_path.split("."))):
            if value is not None and not any(_same(value, default) for default in known[dotted_path]):
                yield dotted_path, at, value


def _same(value: Any, default: object) -> bool:
    """Whether a raw value says no more than a default; a section may write its default keys out."""
    if not isinstance(default, Section) or not isinstance(value, Mapping):
        return bool(value == default)
    fields = type(default).model_fields
    return all(key in fields and _same(one, getattr(default, key)) for key, one in value.items())
