"""The Python face: `Model`, with the method names and return values of LudwigModel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fettle import base as bases
from fettle import check, run
from fettle.base import Base
from fettle.config import Loaded, load
from fettle.data.read import absolute
from fettle.data.split import NAMES
from fettle.data.store import Split
from fettle.errors import ConfigError, Fault, MissingFileError, OutputExistsError
from fettle.files import write_json, write_text
from fettle.generation.predict import frame, predict, record, writer
from fettle.hardware.device import usable
from fettle.model import load as loading
from fettle.prepare import Rows, Sources, with_template
from fettle.release.card import card
from fettle.run import RunFolder
from fettle.session import Session, chosen_rows, open_base, open_saved, output_name
from fettle.training.callbacks import Callback
from fettle.training.config import TrainingSection
from fettle.training.encoded import encoded_rows
from fettle.training.train import in_place, seed_everything, train

BATCH = 32  # prompts answered together where nobody says otherwise
TEST_ANSWERS = 100  # rows of the test split that `train` answers, to show; `experiment` answers all
Dataset = Any
"""A path, glob, hub name, pandas DataFrame, `datasets.Dataset`, dict of columns, or list of rows."""


_Place = tuple[str | Path, str, str, str | Path | None]  # output directory, experiment, model, run to go on with


class PreprocessedData(NamedTuple):
    """Encoded splits, and what shaped them."""

    training_set: Split | None
    validation_set: Split | None
    test_set: Split | None
    training_set_metadata: dict[str, Any]


class TrainingResults(NamedTuple):
    """What training gives back."""

    train_stats: dict[str, Any]
    preprocessed_data: PreprocessedData
    output_directory: str


class Model:
    """A language model under one config: trained, evaluated, asked.

    Args:
        config: path of a YAML, YAML text, or dict.
        overrides: `key=value` texts.
        folder: where relative paths are looked for first; None is the YAML's own folder.

    Raises:
        ConfigError: the config is wrong; every fault is listed.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any],
        overrides: Sequence[str] = (),
        folder: str | Path | None = None,
    ) -> None:
        self._loaded: Loaded = load(config, overrides, None if folder is None else Path(folder))
        self._overrides = tuple(overrides)
        self._session: Session | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The whole config with its defaults."""
        return self._loaded.config.model_dump(mode="json")

    @property
    def output_name(self) -> str:
        """What prediction columns start with."""
        return output_name(self._loaded.config)

    def train(
        self,
        dataset: Dataset = None,
        training_set: Dataset = None,
        validation_set: Dataset = None,
        test_set: Dataset = None,
        experiment_name: str = "api_experiment",
        model_name: str = "run",
        output_directory: str | Path = "results",
        model_resume_path: str | Path | None = None,
        random_seed: int = 42,
        callbacks: Sequence[Callback] = (),
        test_answers: int | None = TEST_ANSWERS,
    ) -> TrainingResults:
        """Fine-tune (or, with `trainer.type: none`, just evaluate the base) and write a run folder.

        Args:
            dataset: rows to be divided by preprocessing.split; or give training_set, validation_set and test_set.
            model_resume_path: run folder to go on with instead of making a new one.
            test_answers: rows of the test split to answer afterwards; None is all.

        Raises:
            FettleError: config, data or machine cannot do it; found before training wherever possible.
        """
        sources = Sources.of(self._loaded.config, dataset, training_set, validation_set, test_set)
        place = (output_directory, experiment_name, model_name, model_resume_path)
        return self._train(sources, place, random_seed, callbacks, "test", test_answers)[0]

    def _train(
        self, sources: Sources, place: _Place, seed: int, callbacks: Sequence[Callback], split: str, answers: int | None
    ) -> tuple[TrainingResults, dict[str, float]]:
        """Train, then score a split: (results, scores)."""
        config = self._loaded.config
        if not 0 <= seed < 2**32:
            raise ConfigError([Fault("", "random_seed", f"expected a number from 0 to {2**32 - 1}, got {seed}")])
        report = check.run(self._loaded, sources, seed, trust_cache=True)
        if report.faults:
            raise ConfigError([Fault("", "", fault) for fault in report.faults])
        for callback in callbacks:
            for warning in report.warnings:
                callback.on_message(f"note: {warning}")
        base, rows = report.base, report.rows
        assert base is not None
        assert rows is not None
        trains = isinstance(config.trainer, TrainingSection)
        if not trains:
            rows = self._rows(sources, base, seed)  # check wants no responses of rows that train nothing; scoring does
        folder = self._folder(place, self._describe(sources, rows))
        if not trains:
            return self._evaluate_base(rows, folder, split, answers)

        def before(model: Any) -> None:
            where, indices = self._scored(rows, split) if answers != 0 else (split, [])
            if indices:
                session = Session(self._loaded, base, model, rows.shape.format, seed)
                session.answer_before(rows, indices[: answers or TEST_ANSWERS], folder, where, BATCH)

        trained = train(self._loaded, base, rows, folder, callbacks, seed, place[3] is not None, before)
        self._session = Session(self._loaded, base, trained.model, trained.encoded.format, seed)
        results = TrainingResults(
            trained.statistics, _data(trained.encoded.splits, trained.encoded.format), str(folder.path)
        )
        if trained.summary.stopped == "interrupted":
            return results, {}
        scores, shown = self._score(rows, folder, split, answers, trained.statistics)
        text = card(config, base.reference, self._loaded.text, trained.statistics, folder.described(), scores, shown)
        write_text(folder.model / "README.md", text)
        return results, scores

    def _folder(self, place: _Place, described: Mapping[str, Any]) -> RunFolder:
        output, experiment, name, resume = place
        if resume is not None:
            return run.go_on(resume, described, self._loaded.config)
        return run.create(output, experiment, name, self._loaded.text, described)

    def _describe(self, sources: Sources, rows: Rows) -> dict[str, Any]:
        folder = self._loaded.folder
        named = {
            where or "dataset": absolute(str(source), folder) if isinstance(source, (str, Path)) else None
            for where, source in sources.named()
        }
        return {
            "dataset": named,
            "overrides": list(self._overrides),
            "folder": str(folder),
            "seed": rows.seed,
            "device": usable().shown,
            "data_fingerprint": rows.fingerprint(),
        }

    def _evaluate_base(
        self, rows: Rows, folder: RunFolder, split: str, answers: int | None
    ) -> tuple[TrainingResults, dict[str, float]]:
        seed_everything(rows.seed)
        config = self._loaded.config
        filled = run.filled_text(
            config, in_place(config, self._loaded.folder, self._prepared().base, rows.shape.format, rows.sources)
        )
        write_text(folder.path / "filled.yaml", filled)
        statistics: dict[str, Any] = {"training": {}, "validation": {}, "test": {}}
        scores, _ = self._score(rows, folder, split, answers, statistics)
        return TrainingResults(statistics, _data({}, rows.shape.format), str(folder.path)), scores

    def _score(
        self, rows: Rows, folder: RunFolder, split: str, answers: int | None, statistics: dict[str, Any]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Score a split and write what came of it: (scores, some samples)."""
        split, indices = self._scored(rows, split)
        scores, samples = (
            self._prepared().score(rows, indices, folder, split, BATCH, answers, statistics) if indices else ({}, [])
        )
        write_json(folder.path / "training_statistics.json", statistics)
        return scores, samples

    def _scored(self, rows: Rows, split: str) -> tuple[str, list[int]]:
        """The split that a run is scored on (validation where there is no test split), and its rows."""
        if self._loaded.config.trainer.skip_all_evaluation:
            return split, []
        if split == "test" and not rows.splits["test"]:
            split = "validation"
        return split, chosen_rows(rows, split)

    def experiment(
        self,
        dataset: Dataset = None,
        training_set: Dataset = None,
        validation_set: Dataset = None,
        test_set: Dataset = None,
        eval_split: str = "test",
        experiment_name: str = "experiment",
        model_name: str = "run",
        output_directory: str | Path = "results",
        model_resume_path: str | Path | None = None,
        random_seed: int = 42,
        callbacks: Sequence[Callback] = (),
    ) -> tuple[dict[str, Any], dict[str, Any], PreprocessedData, str]:
        """Train, then evaluate and predict a whole split: (eval_stats, train_stats, preprocessed_data, output_directory).

        Args:
            eval_split: the split evaluated: training, validation, test or full.
        """
        sources = Sources.of(self._loaded.config, dataset, training_set, validation_set, test_set)
        place = (output_directory, experiment_name, model_name, model_resume_path)
        results, scores = self._train(sources, place, random_seed, callbacks, eval_split, None)
        statistics = {self.output_name: scores, "combined": {"loss": scores["loss"]}} if scores else {}
        return statistics, *results

    def preprocess(
        self,
        dataset: Dataset = None,
        training_set: Dataset = None,
        validation_set: Dataset = None,
        test_set: Dataset = None,
        random_seed: int = 42,
    ) -> PreprocessedData:
        """Encode the rows (or take them from the cache) without training."""
        config = self._loaded.config
        base = bases.find(config, self._loaded.folder, weights=False)
        rows = self._rows(Sources.of(config, dataset, training_set, validation_set, test_set), base, random_seed)
        encoded = encoded_rows(rows)
        return _data(encoded.splits, encoded.format)

    def predict(
        self,
        dataset: Dataset = None,
        split: str = "full",
        batch_size: int = BATCH,
        generation_config: Mapping[str, Any] | None = None,
        output: str | Path | None = None,
        overwrite: bool = False,
        random_seed: int | None = None,
    ) -> tuple[Any, str]:
        """Answer rows: (DataFrame, folder of the output).

        Args:
            split: training, validation, test, or full for all rows.
            random_seed: seed of the split; None is the run's own.
            generation_config: keys of the generation section, for this call.
            output: write a .jsonl, .csv or .parquet file instead; the frame is empty then, nothing is kept in memory.
        """
        session = self._prepared()
        rows = session.rows(Sources.of(session.config, dataset), random_seed, training=False)
        found = predict(session.decoder(generation_config), rows, chosen_rows(rows, split), batch_size)
        token = rows.tokenizer.token
        if output is None:
            return frame(found, self.output_name, token), ""
        with writer(Path(output), overwrite) as put:
            for one in found:
                put(record(one, self.output_name))
        return frame([], self.output_name, token), str(Path(output).parent)

    def evaluate(
        self,
        dataset: Dataset = None,
        split: str = "full",
        batch_size: int = BATCH,
        collect_predictions: bool = False,
        output_directory: str | Path | None = None,
        random_seed: int | None = None,
    ) -> tuple[dict[str, Any], Any, str]:
        """Score the model: (eval_stats, predictions, output_directory).

        Args:
            collect_predictions: give the answers back as a DataFrame as well.
            output_directory: where to write statistics.json; None writes nothing.
        """
        if output_directory is not None and Path(output_directory).is_file():
            raise OutputExistsError(f"{output_directory}: is a file, not a folder")
        session = self._prepared()
        rows = session.rows(Sources.of(session.config, dataset), random_seed, training=True)
        scores, found, _ = session.evaluate(rows, chosen_rows(rows, split), batch_size)
        statistics = {self.output_name: scores, "combined": {"loss": scores["loss"]}}
        if output_directory is not None:
            Path(output_directory).mkdir(parents=True, exist_ok=True)
            write_json(Path(output_directory) / "statistics.json", statistics)
        predictions = frame(found, self.output_name, rows.tokenizer.token) if collect_predictions else {}
        return statistics, predictions, str(output_directory or "")

    def generate(
        self,
        input_strings: str | Sequence[str],
        generation_config: Mapping[str, Any] | None = None,
        raw: bool = False,
        return_full_text: bool = True,
        streaming: Callable[[str], None] | None = None,
        seed: int | None = None,
    ) -> str | list[str]:
        """Answer texts: one text for one, a list for several; each starts with its input unless return_full_text is False.

        Args:
            raw: feed the text as it is; else it is rendered as a row's input is in training.
            streaming: called with each piece of text as it comes (one input only).
            seed: makes sampling repeatable.
        """
        texts = [input_strings] if isinstance(input_strings, str) else list(input_strings)
        session = self._prepared()
        decoder = session.decoder(generation_config)
        if seed is not None:
            seed_everything(seed)
        prompts = [session.prompt(text, raw) for text in texts]
        if streaming is None:
            answers = list(decoder.answers(prompts, BATCH))
        elif len(prompts) == 1:
            answers = [decoder.stream(prompts[0], streaming)]
        else:
            raise ConfigError([Fault("generate", "streaming", f"needs exactly one input, got {len(prompts)}")])
        given = texts if return_full_text else [""] * len(texts)
        written = [text + answer.text for text, answer in zip(given, answers, strict=True)]
        return written[0] if isinstance(input_strings, str) else written

    @staticmethod
    def load(model_dir: str | Path, overrides: Sequence[str] = ()) -> Model:
        """Open a run folder, or the `model` folder of one, wherever it was copied to.

        Raises:
            MissingFileError: there is no finished model.
        """
        path = Path(model_dir)
        folder = path / "model" if (path / "model" / "fettle.yaml").is_file() else path
        if (folder / "fettle.yaml").is_file():
            found = Model(folder / "fettle.yaml", overrides)
            found._session = open_saved(found._loaded, folder)
            return found
        unfinished = (path / "checkpoints").is_dir()
        if (path / "filled.yaml").is_file() and not unfinished:  # trainer.type none: the base as it is
            return Model(path / "filled.yaml", overrides)
        hint = f"; the run did not finish, go on with: fettle train --resume {path}" if unfinished else ""
        what = f"no Fettle model here (fettle.yaml is missing){hint}" if path.is_dir() else "no such folder"
        raise MissingFileError(f"{model_dir}: {what}")

    def save(self, save_path: str | Path) -> None:
        """Write the model as a standard folder, with its config.

        Raises:
            OutputExistsError: the folder is there and not empty.
        """
        path = Path(save_path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputExistsError(f"{path}: is there already; choose another name")
        session = self._prepared()
        changes = in_place(session.config, self._loaded.folder, session.base, session.row_format)
        texts = {
            "fettle.yaml": run.filled_text(session.config, changes),
            "fettle.json": json.dumps({"seed": session.seed}),
        }
        tokenizer = with_template(session.config, session.base.tokenizer, self._loaded.folder)
        loading.save(session.model, tokenizer, path, texts)

    def save_config(self, save_path: str | Path) -> None:
        """Write the config with its defaults as YAML."""
        write_text(Path(save_path), run.filled_text(self._loaded.config, {}))

    def _rows(self, sources: Sources, base: Base, seed: int) -> Rows:
        return Rows(self._loaded.config, sources, self._loaded.folder, base.tokenizer, base.facts.context, seed)

    def _prepared(self) -> Session:
        """The trained model, or the base where nothing is to be trained."""
        if self._session is None:
            if self._loaded.config.trainer.type != "none":
                raise MissingFileError("this model has not been trained; call train, or open a run with Model.load")
            self._session = open_base(self._loaded)
        return self._session


def _data(splits: Mapping[str, Split], row_format: str) -> PreprocessedData:
    training, validation, test = (splits.get(name) for name in NAMES)
    return PreprocessedData(training, validation, test, {"format": row_format})


LudwigModel = Model
