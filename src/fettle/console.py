"""What the heavy verbs print."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table as Grid

from fettle.api import Model, TrainingResults
from fettle.errors import ConfigError, Fault, OutOfMemoryError
from fettle.prompt.config import placeholders
from fettle.run import reopen
from fettle.training.callbacks import Display, default_console
from fettle.yamlfile import parse


def _try(model: Model, folder: Path) -> str:
    """The next command: one text where the template takes one, else a table."""
    template = model.config["prompt"]["template"]
    columns = {name for name, _ in placeholders(template) if not name.startswith("__")} if template else set()
    if len(columns) > 1:
        return f"fettle predict --model_path {folder} --dataset new.csv --output answers.csv"
    return f"fettle generate --model_path {folder} --prompt '...'"


@contextmanager
def _memory_faults() -> Iterator[None]:
    """Turn a device that is full into an error with a mend; the training loop has tried smaller packs by itself before."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = str(error).split(".")[0]
        raise OutOfMemoryError(f"{said}; use an adapter, a smaller base model, or a smaller --batch_size") from None


def _quieten() -> None:
    """Libraries' progress bars and hints are not for our readers."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module=r"(torch|transformers|peft)\.")


@_memory_faults()
def train(source: str, arguments: argparse.Namespace) -> int:
    """`fettle train` and `fettle experiment`."""
    _quieten()
    overrides, data = (
        list(arguments.overrides),
        {key: getattr(arguments, key) for key in ("training_set", "validation_set", "test_set")},
    )
    dataset, seed, folder = arguments.dataset, arguments.random_seed, None
    if arguments.model_resume_path:  # a stopped run knows its data, overrides and seed
        described = reopen(arguments.model_resume_path).described()
        overrides, seed, folder = described["overrides"] + overrides, described["seed"], described["folder"]
        if dataset is None and data["training_set"] is None:
            dataset = described["dataset"].get("dataset")
            data = {f"{key}_set": described["dataset"].get(key) for key in ("training", "validation", "test")}
    model = Model(source, overrides, folder)
    options: dict[str, Any] = {
        **data,
        "experiment_name": arguments.experiment_name,
        "model_name": arguments.model_name,
        "output_directory": arguments.output_directory,
        "model_resume_path": arguments.model_resume_path,
        "random_seed": seed,
        "callbacks": [Display(default_console())],
    }
    if arguments.verb == "experiment":
        _, statistics, prepared, path = model.experiment(dataset, eval_split=arguments.eval_split, **options)
        results = TrainingResults(statistics, prepared, path)
    else:
        results = model.train(dataset, **options)
    return _summary(model, results)


def _summary(model: Model, results: TrainingResults) -> int:
    """What a run came to: losses, test scores, samples, where it lies."""
    out = Console()
    folder = Path(results.output_directory)
    run = results.train_stats.get("summary", {})
    if run.get("stopped") == "interrupted":
        out.print(
            f"interrupted at step {run['step']} of {run['total_steps']}; go on with:\n  fettle train --resume {folder}",
            markup=False,
            highlight=False,
        )
        return 130
    validation = results.train_stats["validation"].get("combined", {}).get("loss", [])
    if len(validation) > 1:
        out.print(
            f"validation loss {validation[0]:.4f} -> {min(validation):.4f} (best at step {run['best_step']} of {run['step']})",
            highlight=False,
        )
    answers = results.train_stats.get("answers")
    if answers is not None:
        split = answers["split"]
        scores = json.loads((folder / f"{split}_statistics.json").read_text(encoding="utf-8"))
        answered = (
            f", {answers['rows_answered']} of {answers['rows']} rows answered" if answers["rows_answered"] else ""
        )
        out.print(f"{split} split{answered}:", highlight=False)
        base = scores.pop("base_exact_match", None)
        _scores(scores, out)
        if base is not None:
            out.print(
                f"  exact match {base:.1%} before training -> {scores['exact_match']:.1%} after\n", highlight=False
            )
        _samples(folder / f"{split}_predictions.jsonl", model.output_name, out)
    out.print(f"run folder: {folder}", markup=False, highlight=False, soft_wrap=True)
    if (folder / "model").is_dir():
        out.print(
            f"try it:     {_try(model, folder)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _scores(scores: Mapping[str, Any], out: Console) -> None:
    """Figures in columns of three."""
    shown = [(name.replace("_", " "), f"{value:.4f}") for name, value in scores.items() if isinstance(value, float)]
    grid = Grid(show_header=False, box=None, padding=(0, 1, 0, 2))
    width = 3 if out.width >= 100 else 2
    for _ in range(width):
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(justify="right")
    for start in range(0, len(shown), width):
        grid.add_row(*(cell for pair in shown[start : start + width] for cell in pair))
    out.print(grid)


def _samples(path: Path, name: str, out: Console, most: int = 2) -> None:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").split("\n")[:most]:
        if not line:
            continue
        row = json.loads(line)
        shown = {key: value for key, value in row.items() if not key.startswith(f"{name}_")}
        for key, value in shown.items():
            out.print(f"  {_short(f'{key}: {value}')}", style="dim", markup=False, highlight=False, soft_wrap=True)
        ending = "" if row[f"{name}_stopped"] is not False else "  (did not stop by itself)"
        before = row.get(f"{name}_base_response")
        if before is not None:
            out.print(f"  before: {_short(before)}", style="dim", markup=False, highlight=False, soft_wrap=True)
        answer = f"{'after: ' if before is not None else '->'} {_short(str(row[f'{name}_response']))}{ending}"
        out.print(f"  {answer}\n", markup=False, highlight=False, soft_wrap=True)


def _short(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 3] + "..."


def _open(arguments: argparse.Namespace) -> Model:
    """The model of --model_path, or the base of --config."""
    _quieten()
    if bool(arguments.model_path) == bool(arguments.config):
        raise ConfigError(
            [
                Fault(
                    "command line",
                    "--model_path",
                    "give a run folder with --model_path, or a base's YAML with --config",
                )
            ]
        )
    if arguments.model_path:
        return Model.load(arguments.model_path, arguments.overrides)
    return Model(arguments.config, [*arguments.overrides, "trainer={type: none}", "adapter=null"])


def _generation(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    data = parse(text, "--generation_config").data
    if not isinstance(data, dict):
        raise ConfigError(
            [Fault("command line", "--generation_config", "expected keys and values such as {max_new_tokens: 20}")]
        )
    return data


@_memory_faults()
def predict(arguments: argparse.Namespace) -> int:
    """`fettle predict`."""
    model = _open(arguments)
    output = Path(arguments.output)
    model.predict(
        arguments.dataset, arguments.split, arguments.batch_size, _generation(arguments.generation_config), output, arguments.overwrite,
        arguments.random_seed,
    )  # fmt: skip
    sys.stdout.write(f"{output}\n")
    return 0


@_memory_faults()
def evaluate(arguments: argparse.Namespace) -> int:
    """`fettle evaluate`."""
    model = _open(arguments)
    statistics, _, _ = model.evaluate(
        arguments.dataset,
        arguments.split,
        arguments.batch_size,
        output_directory=arguments.output_directory,
        random_seed=arguments.random_seed,
    )
    _scores(statistics[model.output_name], Console())
    return 0


@_memory_faults()
def generate(arguments: argparse.Namespace) -> int:
    """`fettle generate`."""
    model = _open(arguments)
    prompt = arguments.prompt if arguments.prompt is not None else sys.stdin.read()

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    model.generate(prompt, _generation(arguments.generation_config), arguments.raw, streaming=show, seed=arguments.seed)
    show("\n")
    return 0
