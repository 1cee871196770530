"""What listens to a run: the metrics file, the progress display, trackers, and a user's own callbacks."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fettle.errors import MissingExtraError
from fettle.files import disk_faults, write_text

Record = Mapping[str, Any]


class Callback:
    """A listener; override what you need. Records are what metrics.jsonl holds."""

    def on_train_start(self, about: Record) -> None:
        """Before the first step; `about` has total_steps, start_step, run_folder and the filled-in config."""

    def on_step(self, record: Record) -> None:
        """After an optimizer step: step, epoch, loss, learning_rate, gradient_norm, tokens, tokens_per_second."""

    def on_evaluation(self, record: Record) -> None:
        """After a split was evaluated: step, split, loss, perplexity, next_token_accuracy."""

    def on_message(self, text: str) -> None:
        """Something to tell the user."""

    def on_train_end(self, summary: Record) -> None:
        """After the last step, also when the run was interrupted."""


class MetricsFile(Callback):
    """Appends every record to metrics.jsonl; a resumed run first drops the lines after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: TextIO | None = None

    def on_train_start(self, about: Record) -> None:
        if self.path.is_file():
            kept = [
                line
                for line in self.path.read_text(encoding="utf-8").split("\n")
                if about["start_step"] and _step(line) in range(about["start_step"] + 1)
            ]
            write_text(self.path, "".join(f"{line}\n" for line in kept))
        with disk_faults(self.path):
            self.stream = self.path.open("a", encoding="utf-8")

    def on_step(self, record: Record) -> None:
        self._write({"split": "training", **record})

    def on_evaluation(self, record: Record) -> None:
        self._write(record)

    def on_train_end(self, summary: Record) -> None:
        if self.stream is not None:
            self.stream.close()

    def _write(self, record: Record) -> None:
        assert self.stream is not None
        with disk_faults(self.path):
            self.stream.write(json.dumps(record) + "\n")
            self.stream.flush()


def _step(line: str) -> int | None:
    """The step of a line; None for one that was cut short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if _step(line) is not None]


def memory_in_use() -> int:
    """Bytes this process holds: the GPU's peak where there is one, else resident memory."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else int(psutil.Process().memory_info().rss)


class Display(Callback):
    """One bar on a terminal, plain lines elsewhere. Speed counts real tokens; there is no padding to count."""

    PLAIN_SECONDS = 10.0

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.total = 0
        self.told = 0.0
        self.speed = 0.0  # smoothed over about ten steps

    def on_train_start(self, about: Record) -> None:
        self.total = about["total_steps"]
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            TextColumn("[bold]training"), BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.fields[shown]}"),
            TextColumn("[dim]left"), TimeRemainingColumn(), console=self.console, transient=False,
        )  # fmt: skip
        self.progress.start()
        self.task = self.progress.add_task("training", total=self.total, completed=about["start_step"], shown="")

    def on_step(self, record: Record) -> None:
        self.speed += 0.1 * (record["tokens_per_second"] - self.speed) if self.speed else record["tokens_per_second"]
        shown = f"loss {record['loss']:.4f} · {self.speed:,.0f} tokens/s · {memory_in_use() / 2**30:.1f} GiB"
        if self.progress is not None:
            self.progress.update(self.task, completed=record["step"], shown=shown)
        elif time.monotonic() - self.told >= self.PLAIN_SECONDS or record["step"] == self.total:
            self.told = time.monotonic()
            self.on_message(f"step {record['step']}/{self.total} · epoch {record['epoch']:.2f} · {shown}")

    def on_evaluation(self, record: Record) -> None:
        accuracy = f"{record['next_token_accuracy']:.1%}"
        self.on_message(
            f"step {record['step']} · {record['split']} loss {record['loss']:.4f} · next-token accuracy {accuracy}"
        )

    def on_message(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)

    def on_train_end(self, summary: Record) -> None:
        if self.progress is not None:
            self.progress.stop()


def _numbers(record: Record) -> dict[str, float]:
    return {key: float(value) for key, value in record.items() if isinstance(value, (int, float)) and key != "step"}


class TensorBoard(Callback):
    """Scalars for TensorBoard, under `logs/` of the run folder."""

    def __init__(self, folder: Path) -> None:
        _need("tensorboard", "tensorboard")
        self.writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder / "logs"))

    def on_step(self, record: Record) -> None:
        self._add("training", record)

    def on_evaluation(self, record: Record) -> None:
        self._add(str(record["split"]), record)

    def _add(self, split: str, record: Record) -> None:
        for key, value in _numbers(record).items():
            self.writer.add_scalar(f"{split}/{key}", value, record["step"])

    def on_train_end(self, summary: Record) -> None:
        self.writer.close()


class WeightsAndBiases(Callback):
    """Metrics for Weights & Biases; WANDB_* environment variables say where to."""

    def __init__(self, folder: Path) -> None:
        self.library = _need("wandb", "wandb")
        self.folder = folder

    def on_train_start(self, about: Record) -> None:
        self.run = self.library.init(
            project=os.environ.get("WANDB_PROJECT", "fettle"),
            name=self.folder.name,
            dir=str(self.folder),
            config=dict(about["config"]),
        )

    def on_step(self, record: Record) -> None:
        self.run.log({f"training/{key}": value for key, value in _numbers(record).items()}, step=record["step"])

    def on_evaluation(self, record: Record) -> None:
        self.run.log(
            {f"{record['split']}/{key}": value for key, value in _numbers(record).items()}, step=record["step"]
        )

    def on_train_end(self, summary: Record) -> None:
        self.run.finish()


class MLflow(Callback):
    """Metrics for MLflow; MLFLOW_TRACKING_URI says where to."""

    def __init__(self, folder: Path) -> None:
        self.library = _need("mlflow", "mlflow")
        self.folder = folder

    def on_train_start(self, about: Record) -> None:
        self.library.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "fettle"))
        self.library.start_run(run_name=self.folder.name)
        trainer = about["config"]["trainer"]
        self.library.log_params(
            {f"trainer.{key}": value for key, value in trainer.items() if not isinstance(value, (dict, list))}
        )

    def on_step(self, record: Record) -> None:
        self.library.log_metrics(
            {f"training.{key}": value for key, value in _numbers(record).items()}, step=record["step"]
        )

    def on_evaluation(self, record: Record) -> None:
        self.library.log_metrics(
            {f"{record['split']}.{key}": value for key, value in _numbers(record).items()}, step=record["step"]
        )

    def on_train_end(self, summary: Record) -> None:
        self.library.end_run()


TRACKERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


def trackers(names: Sequence[str], folder: Path) -> list[Callback]:
    """The trackers of `trainer.callbacks`.

    Raises:
        MissingExtraError: a tracker's package is not installed.
    """
    return [TRACKERS[name](folder) for name in names]


def _need(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(
            f"trainer.callbacks: {extra} needs its package: pip install 'fettle[{extra}]'"
        ) from None


def default_console() -> Console:
    """Where progress goes: standard error, so that standard output stays for results."""
    return Console(file=sys.stderr)
