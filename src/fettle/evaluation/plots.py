"""Learning curves as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fettle.files import disk_faults, whole_file

INK, TRAINING, VALIDATION = "#333333", "#9db8d9", "#c2410c"


def learning_curves(records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw loss, next-token accuracy and learning rate from the records of metrics.jsonl; returns the pictures' paths."""
    steps = [record for record in records if "learning_rate" in record]
    evaluations = [record for record in records if record["split"] == "validation"]
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if steps:
        drawn.append(_loss(steps, evaluations, folder / "loss.png"))
        drawn.append(_line(steps, "learning_rate", "learning rate", folder / "learning_rate.png", TRAINING))
    if len(evaluations) > 1:
        drawn.append(
            _line(
                evaluations,
                "next_token_accuracy",
                "next-token accuracy (validation)",
                folder / "accuracy.png",
                VALIDATION,
            )
        )
    return drawn


def _axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel("step", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    return figure, axes


def _loss(steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], path: Path) -> Path:
    figure, axes = _axes("loss")
    at, losses = [record["step"] for record in steps], [record["loss"] for record in steps]
    axes.plot(at, losses, color=TRAINING, linewidth=0.8, alpha=0.6)
    axes.plot(at, _smoothed(losses), color="#3b6ea5", linewidth=1.6, label="training (smoothed)")
    if evaluations:
        measured = [record["loss"] for record in evaluations]
        seen = [record["step"] for record in evaluations]
        axes.plot(seen, measured, color=VALIDATION, marker="o", markersize=4, label="validation")
        best = min(evaluations, key=lambda record: record["loss"])
        place = {"textcoords": "offset points", "xytext": (0, 8), "ha": "center", "fontsize": 8, "color": VALIDATION}
        axes.annotate(f"{best['loss']:.3f}", (best["step"], best["loss"]), **place)
    if min(losses) > 0 and max(losses) > 20 * min(losses):  # a steep fall would leave nothing to see on a linear axis
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _write(figure, path)


def _line(records: Sequence[Mapping[str, Any]], key: str, title: str, path: Path, color: str) -> Path:
    figure, axes = _axes(title)
    at, values = [record["step"] for record in records], [record[key] for record in records]
    axes.plot(at, values, color=color, marker="o" if len(records) < 40 else "", markersize=4)
    axes.set_ylim(bottom=0)
    return _write(figure, path)


def _smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving mean, corrected for its start."""
    smoothed, mean, seen = [], 0.0, 0.0
    for value in values:
        mean = weight * mean + (1 - weight) * value
        seen = weight * seen + (1 - weight)
        smoothed.append(mean / seen)
    return smoothed


def _write(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    with whole_file(path) as part:
        figure.savefig(part)
    return path
