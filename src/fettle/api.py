"""The Python face: `Model`, with the method names and return values of LudwigModel."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fettle import base as bases
from fettle import check, run
from fettle.base import Base
from fettle.config import Config, Loaded, load
from fettle.data.encode import encode_prompts
from fettle.data.split import NAMES
from fettle.data.store import EncodedSplit, cache_folder
from fettle.errors import ConfigError, DataError, Fault, MissingFileError, OutputExistsError
from fettle.evaluation.evaluate import evaluate_answers, evaluate_likelihood
from fettle.files import write_json, write_text
from fettle.generation.decode import Decoder, settings
from fettle.generation.predict import Prediction, frame, predict, record, writer
from fettle.hardware import facts
from fettle.model import load as loading
from fettle.prepare import Rows, Sources, make_renderer, part_limits, with_template
from fettle.prompt.render import columns_named
from fettle.release.card import card
from fettle.rows import Rendered, Row
from fettle.run import RunFolder
from fettle.tokenizer import read_tokenizer
from fettle.training.callbacks import Callback
from fettle.training.config import FinetuneTrainer
from fettle.training.encoded import encoded_splits
from fettle.training.train import in_place, seed_everything, train

BATCH = 32  # prompts answered together where nobody says otherwise
TEST_ANSWERS = 100  # rows of the test split that `train` answers, to show; `experiment` answers all
Dataset = Any


class TrainingResults(NamedTuple):
    """(train_stats, preprocessed_data, output_directory)."""

    train_stats: dict[str, Any]
    preprocessed_data: PreprocessedData
    output_directory: str


class PreprocessedData(NamedTuple):
    """Encoded splits, and what shaped them."""

    training_set: EncodedSplit | None
    validation_set: EncodedSplit | None
    test_set: EncodedSplit | None
    training_set_metadata: dict[str, Any]


@dataclass
class _Ready:
    """A model in memory and what it takes to use it."""

    model: Any
    base: Base
    row_format: str
    """How rows are read: columns, alpaca or messages."""


class Model:
    """A language model under one config: trained, evaluated, asked.

    Args:
        config: path of a YAML, YAML text, or dict.
        overrides: `key=value` texts.

    Raises:
        ConfigError: the config is wrong; every fault is listed.
    """

    def __init__(self, config: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
        self._loaded: Loaded = load(config, overrides)
        self._overrides = tuple(overrides)
        self._ready: _Ready | None = None
        self.warnings = self._loaded.warnings

    @property
    def config(self) -> dict[str, Any]:
        """The whole config with its defaults."""
        return self._loaded.config.model_dump(mode="json")

    @property
    def _section(self) -> Config:
        return self._loaded.config

    @property
    def output_name(self) -> str:
        """What prediction columns start with."""
        outputs = self._section.output_features
        return outputs[0].name if outputs else "output"

    # --- training ---

    def train(
        self, dataset: Dataset = None, training_set: Dataset = None, validation_set: Dataset = None, test_set: Dataset = None,
        experiment_name: str = "api_experiment", model_name: str = "run", output_directory: str | Path = "results",
        model_resume_path: str | Path | None = None, random_seed: int = 42, callbacks: Sequence[Callback] = (),
        test_answers: int | None = TEST_ANSWERS,
    ) -> TrainingResults:  # fmt: skip
        """Fine-tune (or, with `trainer.type: none`, just evaluate the base) and write a run folder.

        Args:
            dataset: path, glob, hub name, DataFrame, `datasets.Dataset`, dict of columns or list of rows; it is divided by
                preprocessing.split. Or give training_set, validation_set and test_set.
            model_resume_path: run folder to go on with instead of making a new one.
            test_answers: rows of the test split to answer afterwards; None is all.

        Raises:
            FettleError: config, data or machine cannot do it; found before training wherever possible.
        """
        sources = Sources.of(self._section, dataset, training_set, validation_set, test_set)
        report = check.run(self._loaded, sources, random_seed)
        if report.faults:
            raise ConfigError([Fault("", "", fault) for fault in report.faults])
        for warning in report.warnings:
            for callback in callbacks:
                callback.on_message(f"note: {warning}")
        base = bases.find(self._section, self._loaded.folder)
        rows = self._rows(sources, base, random_seed, training=True)
        folder = self._folder(
            sources, rows, output_directory, experiment_name, model_name, model_resume_path, random_seed
        )
        if not isinstance(self._section.trainer, FinetuneTrainer):
            return self._evaluate_base(base, rows, folder, callbacks, test_answers)
        trained = train(self._loaded, base, rows, folder, callbacks, random_seed, model_resume_path is not None)
        self._ready = _Ready(trained.model, base, rows.shape.format)
        data = PreprocessedData(*(trained.splits.get(name) for name in NAMES), {"format": rows.shape.format})
        if trained.summary.stopped != "interrupted":
            test, shown = self._test(rows, folder, test_answers)
            trained.statistics["test"] = {"combined": {key: [value] for key, value in test.items()}}
            write_json(folder.path / "training_statistics.json", trained.statistics)
            text = card(self._section, self._loaded.text, trained.statistics, folder.described(), test, shown)
            write_text(folder.model / "README.md", text)
        return TrainingResults(trained.statistics, data, str(folder.path))

    def _folder(
        self,
        sources: Sources,
        rows: Rows,
        output: str | Path,
        experiment: str,
        name: str,
        resume: str | Path | None,
        seed: int,
    ) -> RunFolder:
        described = {
            "dataset": {
                where or "dataset": source if isinstance(source, str) else type(source).__name__
                for where, source in sources.named()
            },
            "overrides": list(self._overrides),
            "seed": seed,
            "device": facts.device().shown,
            "data_fingerprint": rows.fingerprint(),
        }
        if resume is None:
            return run.create(output, experiment, name, self._loaded.text, described)
        folder = run.reopen(resume)
        before = folder.described()
        if before.get("data_fingerprint") != described["data_fingerprint"]:
            raise DataError(
                f"{resume}: cannot go on: data, config or tokenizer have changed since the run began; start a new run"
            )
        return folder

    def _evaluate_base(
        self, base: Base, rows: Rows, folder: RunFolder, callbacks: Sequence[Callback], answers: int | None
    ) -> TrainingResults:
        seed_everything(rows.seed)
        write_text(
            folder.path / "filled.yaml",
            run.filled_text(self._section, in_place(self._section, base, rows.shape.format)),
        )
        test, _ = self._test(rows, folder, answers)
        statistics = {
            "training": {},
            "validation": {},
            "test": {"combined": {key: [value] for key, value in test.items()}},
        }
        write_json(folder.path / "training_statistics.json", statistics)
        return TrainingResults(
            statistics, PreprocessedData(None, None, None, {"format": rows.shape.format}), str(folder.path)
        )

    def _test(
        self, rows: Rows, folder: RunFolder, answers: int | None
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Score the test split (validation where there is none); write test_statistics.json and test_predictions.jsonl."""
        indices = rows.splits["test"] or rows.splits["validation"]
        if not indices or self._section.trainer.skip_all_evaluation:
            return {}, []
        ready = self._prepared()
        scores = evaluate_likelihood(ready.model, rows, indices, facts.device().kind)
        found = list(predict(self._decoder(), rows, indices[:answers], BATCH))
        scores |= evaluate_answers(found, rows)
        with writer(folder.path / "test_predictions.jsonl", overwrite=True) as put:
            for one in found:
                put(record(one, self.output_name))
        write_json(folder.path / "test_statistics.json", {**scores, "rows": len(indices), "rows_answered": len(found)})
        return scores, [{"prompt": one.prompt, "target": one.target, "response": one.answer.text} for one in found[:3]]

    def experiment(
        self, dataset: Dataset = None, eval_split: str = "test", **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], PreprocessedData, str]:
        """Train, evaluate and predict: (eval_stats, train_stats, preprocessed_data, output_directory).

        Args:
            eval_split: the split evaluated: training, validation, test or full.
            options: those of `train`.
        """
        results = self.train(
            dataset, **{"experiment_name": "experiment", **options, "test_answers": 0 if eval_split != "test" else None}
        )
        sources = Sources.of(
            self._section, dataset, *(options.get(key) for key in ("training_set", "validation_set", "test_set"))
        )
        folder = RunFolder(Path(results.output_directory))
        statistics, _, _ = self._evaluate(
            sources, eval_split, BATCH, options.get("random_seed", 42), folder.path, f"{eval_split}_predictions.jsonl"
        )
        write_json(folder.path / f"{eval_split}_statistics.json", statistics[self.output_name])
        return statistics, results.train_stats, results.preprocessed_data, results.output_directory

    def preprocess(
        self,
        dataset: Dataset = None,
        training_set: Dataset = None,
        validation_set: Dataset = None,
        test_set: Dataset = None,
        random_seed: int = 42,
    ) -> PreprocessedData:
        """Encode the rows (or take them from the cache) without training."""
        base = bases.find(self._section, self._loaded.folder, weights=False)
        rows = self._rows(
            Sources.of(self._section, dataset, training_set, validation_set, test_set), base, random_seed, training=True
        )
        splits, _ = encoded_splits(rows, cache_folder(self._section.backend.cache_dir))
        return PreprocessedData(*(splits.get(name) for name in NAMES), {"format": rows.shape.format})

    # --- using the model ---

    def predict(
        self, dataset: Dataset = None, split: str = "full", batch_size: int = BATCH, generation_config: Mapping[str, Any] | None = None,
        output: str | Path | None = None, overwrite: bool = False, random_seed: int = 42,
    ) -> tuple[Any, str]:  # fmt: skip
        """Answer rows: (DataFrame, folder of the output).

        Args:
            split: training, validation, test, or full for all rows.
            generation_config: keys of the generation section, for this call.
            output: also write a .jsonl, .csv or .parquet file; nothing is kept in memory then, and the frame is empty.
        """
        rows = self._rows(Sources.of(self._section, dataset), self._prepared().base, random_seed, training=False)
        found = predict(self._decoder(generation_config), rows, self._indices(rows, split), batch_size)
        token = rows.tokenizer.backend.id_to_token
        if output is None:
            return frame(found, self.output_name, token), ""
        with writer(Path(output), overwrite) as put:
            for one in found:
                put(record(one, self.output_name))
        return frame([], self.output_name, token), str(Path(output).parent)

    def evaluate(
        self, dataset: Dataset = None, split: str = "full", batch_size: int = BATCH, collect_predictions: bool = False,
        output_directory: str | Path | None = None, random_seed: int = 42,
    ) -> tuple[dict[str, Any], Any, str]:  # fmt: skip
        """Score the model: (eval_stats, predictions, output_directory).

        Args:
            collect_predictions: give the answers back as a DataFrame as well.
            output_directory: where to write statistics.json; None writes nothing.
        """
        folder = Path(output_directory) if output_directory is not None else None
        statistics, found, rows = self._evaluate(
            Sources.of(self._section, dataset), split, batch_size, random_seed, None, ""
        )
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "statistics.json", statistics)
        predictions = frame(found, self.output_name, rows.tokenizer.backend.id_to_token) if collect_predictions else {}
        return statistics, predictions, str(folder or "")

    def _evaluate(
        self, sources: Sources, split: str, batch: int, seed: int, folder: Path | None, name: str
    ) -> tuple[dict[str, Any], list[Prediction], Rows]:
        ready = self._prepared()
        rows = self._rows(sources, ready.base, seed, training=True)
        indices = self._indices(rows, split)
        scores = evaluate_likelihood(ready.model, rows, indices, facts.device().kind)
        found = list(predict(self._decoder(), rows, indices, batch))
        if folder is not None:
            with writer(folder / name, overwrite=True) as put:
                for one in found:
                    put(record(one, self.output_name))
        combined = {"loss": scores["loss"]}
        return {self.output_name: {**scores, **evaluate_answers(found, rows)}, "combined": combined}, found, rows

    def generate(
        self, input_strings: str | Sequence[str], generation_config: Mapping[str, Any] | None = None, raw: bool = False,
        return_full_text: bool = True, streaming: Callable[[str], None] | None = None, seed: int | None = None,
    ) -> str | list[str]:  # fmt: skip
        """Answer texts: one text for one, a list for several; each starts with its input unless return_full_text is False.

        Args:
            raw: feed the text as it is; else it is rendered as a row's input is in training.
            streaming: called with each piece of text as it comes (one input only).
            seed: makes sampling repeatable.
        """
        texts = [input_strings] if isinstance(input_strings, str) else list(input_strings)
        decoder = self._decoder(generation_config)
        if seed is not None:
            seed_everything(seed)
        prompts = [self._prompt(text, raw) for text in texts]
        if streaming is not None:
            if len(prompts) != 1:
                raise ConfigError([Fault("generate", "streaming", "needs exactly one input")])
            answers = [decoder.stream(prompts[0], streaming)]
        else:
            answers = list(decoder.answers(prompts, BATCH))
        written = [
            (text + answer.text) if return_full_text else answer.text
            for text, answer in zip(texts, answers, strict=True)
        ]
        return written[0] if isinstance(input_strings, str) else written

    def _prompt(self, text: str, raw: bool) -> list[int]:
        """Ids of a text that is to be answered."""
        ready = self._prepared()
        rendered = Rendered(((text, False),), whole=False)
        if not raw:
            names = columns_named(self._section.prompt)
            if len(set(names)) > 1:
                raise ConfigError(
                    [
                        Fault(
                            "generate",
                            "prompt",
                            f"the template names several columns ({', '.join(names)}); use predict, or raw",
                        )
                    ]
                )
            messages = ({"role": "user", "content": text},) if ready.row_format == "messages" else None
            row = Row({names[0] if names else "instruction": text}, text, None, messages)
            rendered = make_renderer(self._section, ready.row_format, ready.base.tokenizer, self._loaded.folder).prompt(
                row
            )
        return encode_prompts([rendered], ready.base.tokenizer, part_limits(self._section))[0]

    # --- saving and loading ---

    @staticmethod
    def load(model_dir: str | Path, overrides: Sequence[str] = ()) -> Model:
        """Open a run folder, or the `model` folder of one, wherever it was copied to.

        Raises:
            MissingFileError: there is no finished model.
        """
        path = Path(model_dir)
        folder = path / "model" if (path / "model" / "fettle.yaml").is_file() else path
        text = folder / "fettle.yaml"
        if not text.is_file():
            if (path / "filled.yaml").is_file() and not (
                path / "checkpoints"
            ).is_dir():  # trainer.type none: the base as it is
                return Model(path / "filled.yaml", overrides)
            hint = (
                f"; the run did not finish, go on with: fettle train --model_resume_path {path}"
                if (path / "checkpoints").is_dir()
                else ""
            )
            raise MissingFileError(f"{model_dir}: no Fettle model here (fettle.yaml is missing){hint}")
        found = Model(text, overrides)
        found._open(folder)
        return found

    def _open(self, folder: Path) -> None:
        config, device = self._section, facts.device()
        dtype = "bfloat16" if device.kind == "cuda" and device.bfloat16 else "float32"
        base = bases.at(folder, config.base_model) if config.adapter is None else bases.find(config, folder)
        model = loading.load_base(base.folder, dtype, device.kind, config.trust_remote_code)
        if config.adapter is not None:
            model = loading.load_adapter(model, folder)
            base = replace(base, tokenizer=read_tokenizer(folder))
        model.eval()
        self._ready = _Ready(model, base, config.dataset.format)

    def _prepared(self) -> _Ready:
        """The trained model, or the base where nothing was trained."""
        if self._ready is None:
            if self._section.trainer.type != "none":
                raise MissingFileError("this model has not been trained; call train, or open a run with Model.load")
            config = self._section
            base = bases.find(config, self._loaded.folder)
            model = loading.load_base(base.folder, "float32", facts.device().kind, config.trust_remote_code)
            model.eval()
            shown = config.dataset.format
            if shown == "auto":
                shown = (
                    "columns"
                    if config.output_features
                    else "alpaca"
                    if base.tokenizer.chat_template is None
                    else "messages"
                )
            self._ready = _Ready(model, base, shown)
        return self._ready

    def save(self, save_path: str | Path) -> None:
        """Write the model as a standard folder, with its config.

        Raises:
            OutputExistsError: the folder is there and not empty.
        """
        path = Path(save_path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputExistsError(f"{path}: is there already; choose another name")
        ready = self._prepared()
        text = run.filled_text(self._section, in_place(self._section, ready.base, ready.row_format))
        loading.save(
            ready.model,
            with_template(self._section, ready.base.tokenizer, self._loaded.folder),
            path,
            {"fettle.yaml": text},
        )

    def save_config(self, save_path: str | Path) -> None:
        """Write the config with its defaults as YAML."""
        write_text(Path(save_path), run.filled_text(self._section, {}))

    # --- helpers ---

    def _rows(self, sources: Sources, base: Base, seed: int, training: bool) -> Rows:
        return Rows(self._section, sources, self._loaded.folder, base.tokenizer, base.facts.context, seed, training)

    def _indices(self, rows: Rows, split: str) -> list[int]:
        if split == "full":
            return list(range(len(rows.table)))
        if split not in NAMES:
            raise ConfigError(
                [Fault("command line", "split", f"expected training, validation, test or full, got {split!r}")]
            )
        return rows.splits[split]

    def _decoder(self, override: Mapping[str, Any] | None = None) -> Decoder:
        ready, config = self._prepared(), self._section
        section = config.generation
        if override:
            overrides = [f"generation.{key}={value}" for key, value in override.items()]
            section = load(dict(self._loaded.raw), overrides).config.generation
        stops = bases.stop_ids(config, ready.row_format, ready.base.tokenizer, self._loaded.folder)
        output = config.output_features[0] if config.output_features else None
        most = (
            output.decoder.max_new_tokens or getattr(output.preprocessing, "max_sequence_length", None)
            if output
            else None
        )
        most = most or config.preprocessing.global_max_sequence_length
        made = settings(section, ready.base.tokenizer, stops, ready.base.facts.context, most)
        return Decoder(ready.model, ready.base.tokenizer, made, ready.base.facts.context, facts.device().kind)


LudwigModel = Model
