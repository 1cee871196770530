"""The items of `input_features` and `output_features`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fettle.section import Section

Count = Annotated[int, Field(ge=1)]
MissingValue = Literal["error", "fill_with_const", "fill_with_mode", "bfill", "ffill", "drop_row"]


class TextPreprocessing(Section):
    """How the text of one feature is prepared."""

    pretrained_model_name_or_path: str | None = None
    """Set by Fettle: the base model."""
    tokenizer: str = "hf_tokenizer"
    """Always the base model's tokenizer (`hf_tokenizer`)."""
    vocab_file: str | None = None
    """Not used by language models."""
    sequence_length: Count | None = None
    """Not used by language models: nothing is padded."""
    max_sequence_length: Count | None = None
    """Most tokens of this feature; longer texts are cut at the end."""
    most_common: Count = 20000
    """Not used by language models."""
    padding_symbol: str = "<PAD>"
    """Not used by language models."""
    unknown_symbol: str = "<UNK>"
    """Not used by language models."""
    padding: Literal["left", "right"] = "left"
    """Not used: training never pads, generation pads on the left."""
    lowercase: bool = False
    """Lower-case the text."""
    missing_value_strategy: MissingValue = "error"
    """What happens to an empty cell; `error` names the row."""
    fill_value: str = ""
    """Text for `fill_with_const`."""
    computed_fill_value: str | None = None
    """Set by Fettle."""
    ngram_size: Count = 2
    """Not used by language models."""
    cache_encoder_embeddings: bool = False
    """For encoders; not used by language models."""
    compute_idf: bool = False
    """Not used by language models."""


class CategoryPreprocessing(Section):
    """How the labels of a category are prepared."""

    missing_value_strategy: MissingValue = "error"
    """What happens to an empty cell."""
    fill_value: str = "<UNK>"
    """Label for `fill_with_const`."""
    computed_fill_value: str | None = None
    """Set by Fettle."""
    lowercase: bool = False
    """Lower-case the label."""
    most_common: Count | None = 10000
    """Labels kept."""
    cache_encoder_embeddings: bool = False
    """For encoders."""
    vocab: list[str] | None = None
    """The labels; null means those of the data."""
    fallback_label: str = ""
    """Label when none matches."""


class Encoder(Section):
    """The encoder of an input: none, for language models."""

    type: Literal["passthrough"] = "passthrough"
    """`passthrough`: the language model reads the text itself."""


class InputFeature(Section):
    """A column the model reads."""

    name: str
    """Name of the feature."""
    type: Literal["text"]
    """`text`."""
    column: str | None = None
    """Column of the data; null means the name."""
    proc_column: str | None = None
    """Set by Ludwig; not used."""
    active: bool = True
    """Use this feature."""
    tied: str | None = None
    """Share the encoder of another input."""
    encoder: Encoder = Encoder()
    """The encoder."""
    preprocessing: TextPreprocessing = TextPreprocessing()
    """How the text is prepared."""


class DecoderSection(Section):
    """Keys that every decoder has."""

    tokenizer: str = "hf_tokenizer"
    """Always the base model's tokenizer."""
    input_size: int | None = None
    """Not used by language models."""
    pretrained_model_name_or_path: str | None = ""
    """Set by Fettle."""
    vocab_file: str | None = ""
    """Not used by language models."""
    max_new_tokens: Count | None = None
    """Most tokens of an answer; goes before generation.max_new_tokens."""


class TextExtractor(DecoderSection):
    """The generated text as it is."""

    type: Literal["text_extractor"] = "text_extractor"
    """`text_extractor`: the generated text as it is."""
    match_strategy: Literal["contains", "regex", "json_schema"] = "contains"
    """Not read by this decoder."""


class Match(Section):
    """How one label is recognised."""

    type: Literal["contains", "regex", "json_schema"]
    """Kind of match."""
    value: Any
    """What is looked for."""


class CategoryExtractor(DecoderSection):
    """A label found in the generated text."""

    type: Literal["category_extractor"] = "category_extractor"
    """`category_extractor`: a label found in the generated text."""
    match_strategy: Literal["contains", "regex", "json_schema"] = "contains"
    """Kind of match of labels without one."""
    match: dict[str, Match] | None = None
    """How each label is recognised, tried in order."""
    str2idx: dict[str, int] | None = None
    """Set by Ludwig; not used."""
    fallback_label: str | None = ""
    """Label when none matches."""
    constrain_to_vocabulary: bool = False
    """Let generation produce labels only."""


class Loss(Section):
    """The loss of a text output."""

    type: Literal["next_token_softmax_cross_entropy", "sequence_softmax_cross_entropy", "sparsemax", "entmax15"] = (
        "next_token_softmax_cross_entropy"
    )
    """Kind of loss."""


class OutputSection(Section):
    """Keys that every output has."""

    name: str
    """Name of the feature; prediction columns start with it."""
    column: str | None = None
    """Column of the data; null means the name."""
    proc_column: str | None = None
    """Set by Ludwig; not used."""
    active: bool = True
    """Use this feature."""
    reduce_input: str | None = "sum"
    """Not used by language models."""
    dependencies: list[str] = Field(default_factory=list)
    """Not used: a language model has one output."""
    reduce_dependencies: str | None = "sum"
    """Not used by language models."""
    input_size: int | None = None
    """Not used by language models."""
    num_classes: int | None = None
    """Not used by language models."""


class TextOutput(OutputSection):
    """A text the model writes."""

    type: Literal["text"]
    """`text`."""
    default_validation_metric: Literal["loss"] = "loss"
    """Metric watched when trainer.validation_metric is null."""
    class_similarities: list[Any] | None = None
    """Not used by language models."""
    loss: Loss = Loss()
    """The loss."""
    decoder: TextExtractor = TextExtractor()
    """What is taken from the generated text."""
    preprocessing: TextPreprocessing = TextPreprocessing()
    """How the text is prepared."""


class CategoryOutput(OutputSection):
    """A label the model writes."""

    type: Literal["category"]
    """`category`."""
    default_validation_metric: str = "accuracy"
    """Metric watched when trainer.validation_metric is null."""
    calibration: bool = False
    """Calibrate probabilities."""
    top_k: Count = 3
    """k of hits@k."""
    decoder: CategoryExtractor = CategoryExtractor()
    """How the label is found."""
    preprocessing: CategoryPreprocessing = CategoryPreprocessing()
    """How labels are prepared."""


OutputFeature = Annotated[TextOutput | CategoryOutput, Field(discriminator="type")]
