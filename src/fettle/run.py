"""The run folder: everything about a run in one place, each file whole or not there.

results/<experiment>_<model>[_n]/
  config.yaml             the user's YAML, word for word
  filled.yaml             the same with every default and `auto` filled in
  plan.json               what every `auto` became; a resumed run goes on with it
  description.json        versions, seed, git state, data, overrides, device
  metrics.jsonl           every step and every evaluation
  training_statistics.json, test_statistics.json
  plots/                  learning curves
  checkpoints/            what a stopped run goes on from
  model/                  adapter or full weights, tokenizer, chat template, fettle.yaml, fettle.json, README.md (the card)
  test_predictions.jsonl  where the test split was predicted
  test_base_predictions.jsonl  what the base answered before it was trained
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fettle.config import Config, load
from fettle.errors import ConfigError, DataError, Fault, MissingFileError, OutputExistsError
from fettle.files import disk_faults, write_json, write_text
from fettle.yamlfile import dump

PACKAGES = ("fettle", "torch", "transformers", "peft", "tokenizers", "safetensors", "datasets", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def description(self) -> Path:
        return self.path / "description.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    def described(self) -> dict[str, Any]:
        """description.json."""
        found: dict[str, Any] = json.loads(self.description.read_text(encoding="utf-8"))
        return found


def create(
    output_directory: str | Path, experiment: str, model: str, text: str, description: Mapping[str, Any]
) -> RunFolder:
    """Make the first free folder `<experiment>_<model>[_n]` and write what is known at the start.

    Raises:
        ConfigError: a name is no folder name.
        StorageError: the disk refuses.
    """
    for flag, name in (("experiment_name", experiment), ("model_name", model)):
        if not name or any(mark in name for mark in "/\\\0") or name in (".", ".."):
            raise ConfigError([Fault("command line", flag, f"{name!r} cannot be part of a folder's name")])
    base = Path(output_directory)
    with disk_faults(base):
        try:
            base.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ConfigError([Fault("command line", "output_directory", f"{base} is a file, not a folder")]) from None
        number = 0
        while True:
            path = base / (f"{experiment}_{model}" + (f"_{number}" if number else ""))
            try:
                path.mkdir()
                break
            except FileExistsError:
                number += 1
    folder = RunFolder(path)
    write_text(folder.config, text)
    write_json(folder.description, {**environment(), **description})
    return folder


def reopen(path: str | Path) -> RunFolder:
    """The folder of an earlier run.

    Raises:
        MissingFileError: it is none.
    """
    folder = RunFolder(Path(path))
    if not folder.description.is_file() or not folder.config.is_file():
        raise MissingFileError(f"{path}: not a run folder (config.yaml or description.json is missing)")
    return folder


def go_on(path: str | Path, described: Mapping[str, Any], config: Config) -> RunFolder:
    """The folder of a stopped run, if what it was made of has not changed.

    Raises:
        OutputExistsError: the run is finished.
        DataError: config, data or tokenizer have changed.
    """
    folder = reopen(path)
    if (folder.model / "fettle.yaml").is_file():
        raise OutputExistsError(f"{path}: this run is finished; its model is in {folder.model}")
    before = folder.described()
    began = load(folder.config, before["overrides"]).config.model_dump(exclude={"dataset", "backend"})
    now = config.model_dump(exclude={"dataset", "backend"})
    changed = [key for key in now if now[key] != began[key]]
    if changed:
        raise DataError(f"{path}: cannot go on under another config ({', '.join(changed)} changed); start a new run")
    if before["data_fingerprint"] != described["data_fingerprint"]:
        raise DataError(f"{path}: cannot go on: data or tokenizer have changed since the run began; start a new run")
    return folder


def environment() -> dict[str, Any]:
    """When, where and with what: versions, git state, machine, command. Tokens and variables are never recorded."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "git": _git(),
        "platform": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the working folder and whether it has changes; None outside a repository."""
    asked = [["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]]
    try:
        commit, status = (subprocess.run(one, capture_output=True, text=True, timeout=10, check=False) for one in asked)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return {"commit": commit.stdout.strip(), "changed": bool(status.stdout.strip())}


def filled_text(config: Config, filled: Mapping[str, Any]) -> str:
    """A config as YAML with every default, and every `auto` replaced by what it became."""
    data = config.model_dump(mode="json")
    for key, value in filled.items():
        section, _, name = key.partition(".")
        if name:
            data[section][name] = value
        else:
            data[section] = value
    return dump(data)
