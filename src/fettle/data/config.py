"""The `dataset` and `preprocessing` sections: where the rows come from and how they are divided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fettle.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Probabilities = Annotated[list[Share], Field(min_length=3, max_length=3)]


def _probabilities() -> list[float]:
    return [0.7, 0.1, 0.2]


class Dataset(Section):
    """Where the rows come from. Relative paths are looked for beside the YAML, then in the working folder."""

    path: str | None = None
    """File, glob, folder of Hugging Face `datasets`, or hub name (`hf://name`); it is divided by preprocessing.split."""
    training_set: str | None = None
    """File of training rows; instead of path."""
    validation_set: str | None = None
    """File of validation rows, beside training_set."""
    test_set: str | None = None
    """File of test rows, beside training_set."""
    data_format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "arrow", "text"] = "auto"
    """Kind of file; `auto` goes by its ending."""
    format: Literal["auto", "columns", "alpaca", "messages", "text"] = "auto"
    """Shape of a row: `columns` as the features name them, `alpaca` (instruction, input, output), `messages` (role, content),
    `text` (documents, for trainer.type: pretrain). `auto` looks at the columns when no features are given."""
    messages_column: str = "messages"
    """Column of the conversation, for `messages`."""
    text_column: str = "text"
    """Column of the document, for `text`."""
    document_separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between the documents of a plain text file, such as "\\n\\n"; null makes each file one document."""


class RandomSplit(Section):
    """Rows drawn at random, by the run's seed."""

    type: Literal["random"]
    """`random`: rows drawn at random."""
    probabilities: Probabilities = Field(default_factory=_probabilities)
    """Shares of training, validation and test."""


class FixedSplit(Section):
    """A column says where each row belongs."""

    type: Literal["fixed"]
    """`fixed`: a column says where each row belongs."""
    column: str = "split"
    """Column with 0, 1, 2 or train, validation, test."""


class StratifySplit(Section):
    """At random within each value of a column."""

    type: Literal["stratify"]
    """`stratify`: at random within each value of a column."""
    column: str
    """The column."""
    probabilities: Probabilities = Field(default_factory=_probabilities)
    """Shares of training, validation and test."""


class DatetimeSplit(Section):
    """By time: the earliest rows train."""

    type: Literal["datetime"]
    """`datetime`: the earliest rows train."""
    column: str
    """Column with ISO 8601 times."""
    probabilities: Probabilities = Field(default_factory=_probabilities)
    """Shares of training, validation and test."""


class HashSplit(Section):
    """By a hash of a column: a value stays in its split in every later version of the data."""

    type: Literal["hash"]
    """`hash`: by a hash of a column."""
    column: str
    """The column."""
    probabilities: Probabilities = Field(default_factory=_probabilities)
    """Shares of training, validation and test."""


Split = Annotated[RandomSplit | FixedSplit | StratifySplit | DatetimeSplit | HashSplit, Field(discriminator="type")]


class Preprocessing(Section):
    """How the rows are chosen, divided and cut."""

    sample_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rows to use."""
    sample_size: Annotated[int, Field(ge=1)] | None = None
    """Number of rows to use; instead of sample_ratio."""
    oversample_minority: Annotated[float, Field(gt=0, le=1)] | None = None
    """Ratio to which the rarer class is repeated (binary outputs)."""
    undersample_majority: Annotated[float, Field(gt=0, le=1)] | None = None
    """Ratio to which the more frequent class is thinned (binary outputs)."""
    split: Split = RandomSplit(type="random")
    """How rows are divided into training, validation and test."""
    global_max_sequence_length: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of prompt and response together; longer rows are cut at the end. Null means the model's context."""
    overlong_rows: Literal["auto", "error", "truncate", "drop"] = "auto"
    """What happens to longer rows; `auto` truncates when global_max_sequence_length is given, else it is an error that names them."""
