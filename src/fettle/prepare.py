"""The way of the rows, as one story: sources -> tables -> splits -> canonical rows -> text -> ids.

`check` and `preview` walk it without keeping anything; a training run keeps the ids on disk, by a fingerprint of everything
that shapes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fettle.config import Config
from fettle.data import read, shape, split, stream
from fettle.data.encode import Encoded, Limits, encode_prompts, encode_rows
from fettle.data.feature_config import TextPreprocessing
from fettle.data.table import Table, concatenate
from fettle.errors import ConfigError, DataError, Fault
from fettle.prompt.chat import named_template
from fettle.prompt.render import Renderer, columns_named, reads_sample, renderer
from fettle.rows import Rendered, Row
from fettle.tokenizer import Tokenizer

ENCODING_VERSION = 1  # raise when the way from rows to ids changes, so that older caches are not read
CHUNK = 2000  # rows rendered and encoded at a time
SHOWN = 3  # faulty rows named in a message
# What to say of rows that are not learnt from as they are, by the names under which they are counted.
LOST_ROWS = {
    "truncated": "truncated",
    "dropped": "dropped for their length",
    "unlabelled": "dropped because nothing of their response is left",
    "empty": "dropped for an empty cell",
}
_HUB_SPLITS = {"train": "training", "val": "validation", "dev": "validation", "eval": "validation", "test": "test"}


class OverlongRowsError(DataError):
    """Rows are longer than the limit, and the config does not say what to do with them."""


@dataclass(frozen=True)
class Sources:
    """Where the rows come from: one source to divide, or one per split."""

    whole: Any = None
    training: Any = None
    validation: Any = None
    test: Any = None

    @staticmethod
    def of(
        config: Config, dataset: Any = None, training_set: Any = None, validation_set: Any = None, test_set: Any = None
    ) -> Sources:
        """What was given beside the config goes before what stands in it.

        Raises:
            ConfigError: nothing was given at all.
        """
        if training_set is None and (validation_set is not None or test_set is not None):
            said = "need training_set beside them; dataset is divided by preprocessing.split"
            raise ConfigError([Fault("command line", "validation_set, test_set", said)])
        if dataset is not None or training_set is not None:
            if dataset is not None and training_set is not None:
                raise ConfigError([Fault("command line", "dataset", "give either dataset or training_set")])
            return Sources(dataset, training_set, validation_set, test_set)
        if config.dataset.path is None and config.dataset.training_set is None:
            raise ConfigError([Fault("", "dataset", "no data given; set dataset.path in the YAML or pass --dataset")])
        return Sources.of_section(config)

    @staticmethod
    def of_section(config: Config) -> Sources:
        """What the dataset section names, if anything."""
        section = config.dataset
        return Sources(section.path, section.training_set, section.validation_set, section.test_set)

    def named(self) -> list[tuple[str, Any]]:
        """The sources given, by split ("" for one to divide)."""
        pairs = (("", self.whole), ("training", self.training), ("validation", self.validation), ("test", self.test))
        return [(name, source) for name, source in pairs if source is not None]


@dataclass
class Rows:
    """The rows of a run before any is encoded: tables are read when first asked for."""

    config: Config
    sources: Sources
    folder: Path
    tokenizer: Tokenizer
    context: int | None
    seed: int
    training: bool = True
    """Responses are needed; False when only predictions are wanted."""
    _split: dict[str, list[int]] = field(default_factory=dict)

    @cached_property
    def table(self) -> Table:
        """All rows, one table."""
        tables: list[Table] = []
        count = 0
        for name, source in self.sources.named():
            found = self._read(source)
            for key, part in found.items():
                where = name or ("" if len(found) == 1 else _split_of(key))
                if where:
                    self._split.setdefault(where, []).extend(range(count, count + len(part)))
                tables.append(part)
                count += len(part)
        return concatenate(tables)

    def _read(self, source: Any) -> dict[str, Table]:
        """The tables of a source; documents stay on disk."""
        section = self.config.dataset
        if isinstance(source, (str, Path)) and not read.is_hub_name(str(source), self.folder):
            paths = read.find(str(source), self.folder)
            plain = section.data_format == "auto" and any(stream.kind(path) == "text" for path in paths)
            if self.documents or plain:
                table = stream.stream(paths, section.data_format, section.text_column, section.document_separator)
                if table is not None:
                    table.fingerprint = read.source_fingerprint(source, self.folder) or ""
                    return {"": table}
        return read.read(source, self.folder, section.data_format)

    @property
    def documents(self) -> bool:
        """Whether rows are plain text."""
        section = self.config.dataset
        return section.format == "text" or (section.format == "auto" and self.config.trainer.type == "pretrain")

    @cached_property
    def splits(self) -> dict[str, list[int]]:
        """Row indices of training, validation and test."""
        table = self.table
        if self._split:
            chosen = {name: self._split.get(name, []) for name in split.NAMES}
            keep = split.sample(len(chosen["training"]), self.config.preprocessing, self.seed)
            return {**chosen, "training": [chosen["training"][index] for index in keep]}
        return split.split(table, self.config.preprocessing, self.seed)

    @property
    def divided_already(self) -> bool:
        """Whether the sources came as splits, so that preprocessing.split has nothing to divide."""
        return bool(self.table) and bool(self._split)

    @cached_property
    def shape(self) -> shape.Shape:
        config = self.config
        return shape.resolve(
            config.dataset.model_copy(update={"format": "text"}) if self.documents else config.dataset,
            config.input_features,
            config.output_features,
            columns_named(config.prompt),
            self.table,
            self.training,
            reads_sample(config.prompt),
        )

    @cached_property
    def renderer(self) -> Renderer:
        return make_renderer(self.config, self.shape.format, self.tokenizer, self.folder)

    @property
    def limit(self) -> int | None:
        """Most tokens of a row."""
        known = [
            size for size in (self.config.preprocessing.global_max_sequence_length, self.context) if size is not None
        ]
        return min(known) if known else None

    @property
    def block_length(self) -> int:
        """Tokens of a block of documents.

        Raises:
            ConfigError: neither the config nor the model says.
        """
        if self.limit is None:
            said = (
                "the base model does not say how much it reads at once; set it to the tokens of a block, such as 1024"
            )
            raise ConfigError([Fault("", "preprocessing.global_max_sequence_length", said)])
        return self.limit

    @property
    def limits(self) -> Limits:
        return part_limits(self.config)

    def canonical(self, indices: Sequence[int]) -> Iterator[tuple[int, Row | None]]:
        return shape.canonical(
            self.table, indices, self.shape, self.config.input_features, self.config.output_features, self.training
        )

    def rendered(self, indices: Sequence[int]) -> Iterator[tuple[int, Rendered | None]]:
        """(index, text) of each row; None where an empty cell drops it.

        Raises:
            DataError: a row cannot be rendered; the message names file and line.
        """
        for index, row in self.canonical(indices):
            yield index, self._rendered(index, row, self.renderer.finished)

    def _rendered(self, index: int, row: Row | None, render: Callable[[Row], Rendered]) -> Rendered | None:
        if row is None:
            return None
        try:
            text = render(row)
            text.text.encode()
        except DataError as error:
            raise DataError(f"{self.table.place(index)}: {error}") from None
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.table.place(index)}: half of a character ({error.object[error.start]!a}); was a text cut in the middle?"
            ) from None
        return text

    def prompts(self, indices: Sequence[int]) -> Iterator[tuple[int, Row | None, list[int]]]:
        """(index, row, ids the model is given) of each row."""
        for start in range(0, len(indices), CHUNK):
            chunk = list(self.canonical(indices[start : start + CHUNK]))
            texts = [self._rendered(index, row, self.renderer.prompt) for index, row in chunk]
            ids = iter(encode_prompts([text for text in texts if text is not None], self.tokenizer, self.limits))
            for index, row in chunk:
                yield index, row, [] if row is None else next(ids)

    def encoded(self, name: str) -> Iterator[tuple[list[int], list[Rendered], list[Encoded], dict[str, int]]]:
        """Chunks of a split: row indices, texts, ids, and how many rows were truncated or dropped.

        Raises:
            DataError: rows are longer than the limit and `overlong_rows` does not say what to do.
        """
        overlong: list[tuple[int, int]] = []
        indices = self.splits[name]
        for start in range(0, len(indices), CHUNK):
            pairs = list(self.rendered(indices[start : start + CHUNK]))
            kept = [(index, text) for index, text in pairs if text is not None]
            encoded = encode_rows([text for _, text in kept], self.tokenizer, self.limits)
            counts = {"empty": len(pairs) - len(kept)}
            if self.shape.format == "text":  # a document that is longer goes on in the next block
                yield [index for index, _ in kept], [text for _, text in kept], encoded, counts
                continue
            chunk = self._fit([index for index, _ in kept], [text for _, text in kept], encoded, counts, overlong)
            yield (*chunk, counts)
        if overlong and self.overlong == "error":
            raise OverlongRowsError(self._overlong_message(overlong))

    def fits(self, one: Encoded) -> bool:
        """Whether a row is within the limit."""
        return self.limit is None or len(one.ids) <= self.limit

    @property
    def overlong(self) -> str:
        """What happens to rows longer than the limit."""
        section = self.config.preprocessing
        if section.overlong_rows != "auto":
            return section.overlong_rows
        return "truncate" if section.global_max_sequence_length is not None else "error"

    def _fit(
        self,
        indices: list[int],
        texts: list[Rendered],
        encoded: list[Encoded],
        counts: dict[str, int],
        overlong: list[tuple[int, int]],
    ) -> tuple[list[int], list[Rendered], list[Encoded]]:
        """Cut or leave out rows longer than the limit, and rows in which nothing carries loss."""
        rows: list[int] = []
        shown: list[Rendered] = []
        fitted: list[Encoded] = []
        for index, text, one in zip(indices, texts, encoded, strict=True):
            if self.limit is not None and len(one.ids) > self.limit:
                overlong.append((index, len(one.ids)))
                counts["overlong"] = counts.get("overlong", 0) + 1
                if self.overlong == "drop":
                    counts["dropped"] = counts.get("dropped", 0) + 1
                    continue
                one = one.cut(self.limit)
                if self.overlong == "truncate" and any(one.trained[1:]):
                    counts["truncated"] = counts.get("truncated", 0) + 1
            if not any(one.trained[1:]):
                if self.limit is None or len(one.ids) < self.limit:
                    raise DataError(
                        f"{self.table.place(index)}: nothing in this row carries loss (its response is empty)"
                    )
                counts["unlabelled"] = counts.get("unlabelled", 0) + 1
                continue
            rows.append(index)
            shown.append(text)
            fitted.append(one)
        return rows, shown, fitted

    def _overlong_message(self, overlong: list[tuple[int, int]]) -> str:
        named = ", ".join(f"{self.table.place(index)} ({length} tokens)" for index, length in overlong[:SHOWN])
        more = f" and {len(overlong) - SHOWN} more" if len(overlong) > SHOWN else ""
        return (
            f"{len(overlong)} rows are longer than the model's context of {self.limit} tokens: {named}{more}. "
            "Set preprocessing.overlong_rows to truncate (cuts the end, so those rows do not teach the model to stop) or to drop"
        )

    def fingerprint(self) -> str:
        """Hash of everything that shapes the ids: sources, sections, tokenizer, limits, seed."""
        parts = []
        for name, source in self.sources.named():
            known = read.source_fingerprint(source, self.folder)
            parts.append([name, known if known is not None else self.table.fingerprint])
        config = self.config
        sections = {
            "dataset": config.dataset.model_dump(exclude={"path", "training_set", "validation_set", "test_set"}),
            "preprocessing": config.preprocessing.model_dump(),
            "prompt": config.prompt.model_dump(),
            "inputs": [feature.model_dump() for feature in config.input_features],
            "outputs": [feature.model_dump() for feature in config.output_features],
        }
        tokenizer = with_template(config, self.tokenizer, self.folder).fingerprint
        told = json.dumps(
            [ENCODING_VERSION, parts, sections, tokenizer, self.limit, self.seed], sort_keys=True, default=str
        )
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _split_of(key: str) -> str:
    """The split that a part of a dataset is, by how its name starts (`train`, `validation_matched`, `test_sft`)."""
    found = next((split for start, split in _HUB_SPLITS.items() if key.lower().startswith(start)), None)
    if found is None:
        raise DataError(
            f"the dataset has a part {key!r} that is neither train, validation nor test; save it as a file of its own"
        )
    return found


def part_limits(config: Config) -> Limits:
    """The features' own limits."""
    reading = config.input_features[0].preprocessing.max_sequence_length if config.input_features else None
    writing = config.output_features[0].preprocessing if config.output_features else None
    return Limits(reading, writing.max_sequence_length if isinstance(writing, TextPreprocessing) else None)


def with_template(config: Config, tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """The tokenizer with the chat template that the config asks for."""
    if config.prompt.chat_template is None:
        return tokenizer
    return tokenizer.with_chat_template(named_template(config.prompt.chat_template, folder))


def make_renderer(config: Config, row_format: str, tokenizer: Tokenizer, folder: Path) -> Renderer:
    """The renderer of a run, for rows of a format."""
    own = with_template(config, tokenizer, folder)
    if config.prompt.chat_template == "chatml" and "<|im_end|>" not in own.backend.get_vocab():
        raise DataError(
            "prompt.chat_template: chatml needs the tokens <|im_start|> and <|im_end|>, which this tokenizer lacks; use plain"
        )
    made = renderer(config.prompt, row_format, own.chat_template, own.bos, own.eos)
    if made.chat is not None and part_limits(config) != Limits():
        raise DataError(
            "a feature's preprocessing.max_sequence_length cannot be combined with a chat template; "
            "use preprocessing.global_max_sequence_length, and generation.max_new_tokens for answers"
        )
    return made
