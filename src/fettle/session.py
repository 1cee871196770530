"""A model in memory, ready to answer and to be scored, with the very rendering it was trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fettle import base as bases
from fettle.base import Base
from fettle.config import Config, Loaded, load
from fettle.data.encode import encode_prompts
from fettle.data.split import NAMES
from fettle.errors import ConfigError, Fault
from fettle.evaluation.evaluate import evaluate_answers, evaluate_likelihood
from fettle.files import write_json
from fettle.generation.decode import Decoder, settings
from fettle.generation.predict import Prediction, predict, record, writer
from fettle.hardware.device import usable
from fettle.model import load as loading
from fettle.prepare import Rows, Sources, make_renderer, part_limits
from fettle.prompt.render import columns_named
from fettle.rows import Rendered, Row
from fettle.run import RunFolder
from fettle.tokenizer import read_tokenizer


@dataclass(frozen=True)
class Session:
    """Model, tokenizer and config together."""

    loaded: Loaded
    base: Base
    model: Any
    row_format: str
    """How rows are read: columns, alpaca, messages or text."""
    seed: int = 42
    """The run's seed, which its split was made with."""

    @property
    def config(self) -> Config:
        return self.loaded.config

    @property
    def output_name(self) -> str:
        return output_name(self.config)

    def rows(self, sources: Sources, seed: int | None, training: bool) -> Rows:
        """Rows of other data under the same config; without a seed, split as the run's were."""
        own, context = self.seed if seed is None else seed, self.base.facts.context
        return Rows(self.config, sources, self.loaded.folder, self.base.tokenizer, context, own, training)

    def decoder(self, override: Mapping[str, Any] | None = None) -> Decoder:
        """What writes answers, by the generation section with `override` laid over it.

        Raises:
            ConfigError: an override is no key of the section.
        """
        config, tokenizer, context = self.config, self.base.tokenizer, self.base.facts.context
        section = config.generation
        if override:
            laid = [f"generation.{key}={value}" for key, value in override.items()]
            section = load(dict(self.loaded.raw), laid).config.generation
        stops = bases.stop_ids(config, self.row_format, tokenizer, self.loaded.folder)
        output = config.output_features[0] if config.output_features else None
        own = output.decoder.max_new_tokens if output else None
        most = own or part_limits(config).output or config.preprocessing.global_max_sequence_length
        made = settings(section, tokenizer, stops, context, most)
        return Decoder(self.model, tokenizer, made, context, usable().kind)

    def prompt(self, text: str, raw: bool) -> list[int]:
        """Ids of a text to answer: as it is, or rendered as the input of a training row.

        Raises:
            ConfigError: the prompt template names several columns, so one text cannot fill it.
        """
        rendered = Rendered(((text, False),), whole=False)
        if not raw:
            inputs = self.config.input_features
            text = text.lower() if inputs and inputs[0].preprocessing.lowercase else text
            names = sorted(set(columns_named(self.config.prompt)))
            if len(names) > 1:
                said = f"the template names several columns ({', '.join(names)}); use predict, or raw"
                raise ConfigError([Fault("generate", "prompt", said)])
            messages = ({"role": "user", "content": text},) if self.row_format == "messages" else None
            row = Row({names[0] if names else "instruction": text}, text, None, messages)
            renderer = make_renderer(self.config, self.row_format, self.base.tokenizer, self.loaded.folder)
            rendered = renderer.prompt(row)
        return encode_prompts([rendered], self.base.tokenizer, part_limits(self.config))[0]

    def answer_before(self, rows: Rows, indices: Sequence[int], folder: RunFolder, split: str, batch_size: int) -> None:
        """Let the model answer rows before it is trained, so that the run can show what training changed."""
        if rows.shape.format == "text":
            return
        self.model.eval()
        devices = [torch.cuda.current_device()] if usable().kind == "cuda" else []
        with torch.random.fork_rng(devices), writer(folder.path / f"{split}_base_predictions.jsonl", True) as put:
            for one in predict(self.decoder(), rows, indices, batch_size):
                put(record(one, self.output_name))

    def score(
        self,
        rows: Rows,
        indices: Sequence[int],
        folder: RunFolder,
        split: str,
        batch_size: int,
        answered: int | None,
        statistics: dict[str, Any],
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Score a split of a run, write its statistics and answers, and add them to the run's: (scores, some samples)."""
        earlier = dict(zip(indices, self._base_responses(folder, split), strict=False))
        output = folder.path / f"{split}_predictions.jsonl"
        scores, found, scored = self.evaluate(rows, indices, batch_size, answered, output, earlier)
        about: dict[str, Any] = {"split": split, "rows": scored, "rows_answered": len(found)}
        pairs = [(earlier.get(one.index), one.target) for one in found]
        same = [text.strip() == target.strip() for text, target in pairs if text is not None and target is not None]
        if same:
            about["base_exact_match"] = sum(same) / len(same)
        write_json(folder.path / f"{split}_statistics.json", {**about, **scores})
        if split == "test":
            statistics["test"] = {"combined": {key: [value] for key, value in scores.items()}}
        statistics["answers"] = about
        samples = [
            {"prompt": one.prompt, "target": one.target, "base": earlier.get(one.index), "response": one.answer.text}
            for one in found
            if one.answer is not None
        ]
        return scores, samples[:3]

    def _base_responses(self, folder: RunFolder, split: str) -> list[str | None]:
        """What the model answered before it was trained, where it was asked."""
        path = folder.path / f"{split}_base_predictions.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        return [json.loads(line)[f"{self.output_name}_response"] for line in lines]

    def evaluate(
        self,
        rows: Rows,
        indices: Sequence[int],
        batch_size: int,
        answered: int | None = None,
        output: Path | None = None,
        earlier: Mapping[int, str | None] | None = None,
    ) -> tuple[dict[str, float], list[Prediction], int]:
        """Score rows: (scores, answers, number of rows scored).

        Args:
            answered: how many of the rows that can be scored are answered as well; None is all.
            output: file for the answers.
            earlier: what the base answered, by row; stands beside the answers in the file.
        """
        scores, kept = evaluate_likelihood(self.model, rows, indices, usable().kind)
        if rows.shape.format == "text":  # a text that goes on has no right answer to be compared with
            return scores, [], len(kept)
        found = list(predict(self.decoder(), rows, kept[:answered], batch_size))
        if output is not None:
            with writer(output, overwrite=True) as put:
                for one in found:
                    base = {f"{self.output_name}_base_response": earlier.get(one.index)} if earlier else {}
                    put(record(one, self.output_name) | base)
        return scores | evaluate_answers(found, rows), found, len(kept)


def output_name(config: Config) -> str:
    """What prediction columns start with."""
    return config.output_features[0].name if config.output_features else "output"


def chosen_rows(rows: Rows, split: str) -> list[int]:
    """Row indices of a split, or of all rows for `full`.

    Raises:
        ConfigError: there is no such split.
    """
    if split == "full":
        return list(range(len(rows.table)))
    if split not in NAMES:
        raise ConfigError([Fault("", "split", f"expected training, validation, test or full, got {split!r}")])
    return rows.splits[split]


def _precision() -> str:
    """Arithmetic of answering and scoring, for bases and trained models alike."""
    device = usable()
    return "bfloat16" if device.kind == "cuda" and device.bfloat16 else "float32"


def open_base(loaded: Loaded) -> Session:
    """The base model of a config, as it is."""
    config = loaded.config
    base = bases.find(config, loaded.folder)
    model = loading.load_base(base.folder, _precision(), usable().kind, config.trust_remote_code)
    model.eval()
    row_format: str = config.dataset.format
    if row_format == "auto":
        chat = "messages" if base.tokenizer.chat_template is not None else "alpaca"
        row_format = "columns" if config.output_features else chat
    return Session(loaded, base, model, row_format)


def open_saved(loaded: Loaded, folder: Path) -> Session:
    """The model that a run saved into a folder."""
    config = loaded.config
    base = bases.at(folder, config.base_model) if config.adapter is None else bases.find(config, folder)
    model = loading.load_base(base.folder, _precision(), usable().kind, config.trust_remote_code)
    if config.adapter is not None:
        model = loading.load_adapter(model, folder)
        base = replace(base, tokenizer=read_tokenizer(folder))
    model.eval()
    about = folder / "fettle.json"
    seed = json.loads(about.read_text(encoding="utf-8"))["seed"] if about.is_file() else 42
    return Session(loaded, base, model, config.dataset.format, seed)
