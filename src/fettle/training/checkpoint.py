"""Checkpoints of a run: whole or not there, the newest whole one is resumed.

`checkpoints/step-00000120/` holds `trained.safetensors` (the weights that train), `optimizer.pt`, `random.pt` and
`state.json`; `checkpoints/best/` holds the best weights and their metrics.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fettle.files import whole_folder

Scaler = torch.amp.GradScaler | None
_NAME = re.compile(r"step-(\d{8})")


@dataclass
class State:
    """Where a run stands: all that decides what its next step does, besides weights and optimizer."""

    step: int = 0
    epoch: int = 0
    cursor: int = 0
    """Rows of the epoch's order that were read."""
    tokens: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    """Evaluations since the best."""
    batch_growths: int = 0
    reductions: int = 0
    watched: dict[str, list[float]] = field(default_factory=dict)
    """Best value and evaluations without improvement of what plateaus are measured by."""
    seconds: float = 0.0
    pack_tokens: int = 0
    """Most tokens of a forward pass since memory ran out; 0 is the plan's."""


def trained_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Names and weights that train."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def save(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: Scaler, state: State, keep: int
) -> Path:
    """Write the checkpoint of a step and remove those older than the `keep` newest."""
    path = folder / f"step-{state.step:08d}"
    with whole_folder(path) as part:
        save_file(_detached(model), part / "trained.safetensors")
        states = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None}
        torch.save(states, part / "optimizer.pt")
        torch.save(_random_state(), part / "random.pt")
        (part / "state.json").write_text(json.dumps(asdict(state), indent=2))
    for old in whole(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def save_best(folder: Path, model: torch.nn.Module, about: dict[str, Any]) -> None:
    """Keep these weights as the best so far."""
    with whole_folder(folder / "best") as part:
        save_file(_detached(model), part / "trained.safetensors")
        (part / "metrics.json").write_text(json.dumps(about, indent=2))


def whole(folder: Path) -> list[Path]:
    """The whole checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and (path / "state.json").is_file()]
    return sorted(found)


def load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: Scaler) -> State:
    """Put a checkpoint back: weights, optimizer, random state."""
    load_weights(path, model)
    states = torch.load(path / "optimizer.pt", weights_only=True)
    optimizer.load_state_dict(states["optimizer"])
    if scaler is not None:
        scaler.load_state_dict(states["scaler"])
    _set_random_state(torch.load(path / "random.pt", weights_only=True))
    return State(**json.loads((path / "state.json").read_text()))


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that can be read in full."""
    for path in reversed(whole(folder)):
        try:
            load_file(path / "trained.safetensors")
        except (SafetensorError, OSError):
            continue
        return path
    return None


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Put back the weights that train."""
    saved = load_file(path / "trained.safetensors")
    with torch.no_grad():
        for name, weight in trained_weights(model).items():
            weight.copy_(saved[name])


def _detached(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().contiguous() for name, weight in trained_weights(model).items()}


def _random_state() -> dict[str, Any]:
    version, inner, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(inner), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached],
    }


def _set_random_state(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
    version, inner, gauss = saved["python"]
    random.setstate((version, tuple(inner), gauss))
    keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
