"""From a YAML (or a dict) and overrides to a Config: laid together once, validated once, frozen.

Every fault is found in one go: what pydantic refuses is cut out and the rest is checked again, so that the rules between
keys are reported beside misspelt ones.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from fettle import availability, crosschecks
from fettle.data.config import Dataset, Preprocessing
from fettle.data.feature_config import InputFeature, OutputFeature
from fettle.errors import ConfigError, Fault, MissingFileError
from fettle.faults import prune, to_faults
from fettle.generation.config import Generation
from fettle.hardware.config import Backend, LocalBackend
from fettle.model.adapter_config import Adapter, Adapters
from fettle.model.config import ModelParameters, Quantization
from fettle.prompt.config import Prompt
from fettle.section import Section
from fettle.training.config import NoTrainer, Trainer
from fettle.yamlfile import MAX_CHARACTERS, Document, dotted, dump, parse
from fettle.yamlfile import Path as KeyPath


class Config(Section):
    """Everything about a run."""

    model_type: Literal["llm"]
    """`llm`: a language model that writes."""
    base_model: str
    """`fettle:pocket`, a local Hugging Face folder, or a hub id."""
    input_features: list[InputFeature] = Field(default_factory=list)
    """The column the model reads: exactly one, of type text. May be left out for Alpaca and messages data."""
    output_features: list[OutputFeature] = Field(default_factory=list)
    """The column the model writes: exactly one. May be left out for Alpaca and messages data."""
    dataset: Dataset = Dataset()
    """Where the rows come from."""
    prompt: Prompt = Prompt()
    """How a row becomes what the model reads."""
    preprocessing: Preprocessing = Preprocessing()
    """How rows are chosen, divided and cut."""
    adapter: Adapter | None = None
    """Train an adapter instead of all weights: a name (`lora`) or a section."""
    adapters: Adapters | None = None
    """Several named adapters; instead of adapter."""
    quantization: Quantization | None = None
    """Weights of the base model in few bits."""
    model_parameters: ModelParameters | None = None
    """Changes to the base model's own configuration."""
    trainer: Trainer = NoTrainer(type="none")
    """What is trained, and how."""
    generation: Generation = Generation()
    """How the model writes its answer."""
    backend: Backend = LocalBackend(type="local")
    """Where the run is carried out: a name or a section."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Preprocessing for all features of a type."""
    hyperopt: dict[str, Any] | None = None
    """Search for good settings."""
    trust_remote_code: bool = False
    """Allow code that comes with a base model to run."""
    is_multimodal: bool = False
    """The base model reads images as well."""
    preset: str | None = None
    """Named set of settings."""
    ludwig_version: str | None = None
    """Written into configs by Ludwig; not used."""


@dataclass(frozen=True)
class Loaded:
    """A valid Config and where it came from."""

    config: Config
    raw: Mapping[str, Any]
    text: str
    """The user's YAML word for word."""
    folder: Path
    """Folder that relative paths are looked for in first."""
    warnings: tuple[str, ...] = ()


def load(
    source: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = (), folder: Path | None = None
) -> Loaded:
    """Read a config from a YAML file, a YAML text (anything with a newline or `: `) or a dict.

    Args:
        overrides: `key=value` texts such as `trainer.learning_rate=2e-4`; values are YAML.
        folder: where relative paths are looked for first; None is the YAML's own folder.

    Raises:
        MissingFileError: the file does not exist.
        ConfigError: the config is wrong; `.faults` lists everything that is.
    """
    loaded, faults = examine(source, overrides)
    if faults or loaded is None:
        raise ConfigError(faults)
    return loaded if folder is None else replace(loaded, folder=folder)


def examine(
    source: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()
) -> tuple[Loaded | None, list[Fault]]:
    """What `load` reads, and every fault; a config with faults is given without the keys that have them, if that leaves one.

    Raises:
        MissingFileError, ConfigError: there is nothing that could be read any further.
    """
    document, text, folder = _read(source)
    faults = list(document.faults)
    if not isinstance(document.data, dict):
        raise ConfigError([*faults, Fault(document.name, "", "expected keys and values such as `model_type: llm`")])
    faults += _shorten(document)
    for override in overrides:
        faults += _lay(document, override)
        faults += _shorten(document)
    config, found = _validate(document)
    faults = _in_order([*faults, *found])
    if config is None:
        return None, faults
    return Loaded(config, document.data, text, folder, tuple(_without_effect(document, config))), faults


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Document, str, Path]:
    if isinstance(source, Mapping):
        return _from_mapping(source)
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return parse(source, "config"), source, Path.cwd()
    path = Path(source)
    if not os.path.isfile(path):  # unlike Path.is_file, also for a name too long for the system
        what = "is a folder, not a YAML file" if os.path.isdir(path) else "does not exist"
        raise MissingFileError(f"{path}: the config {what}")
    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(MAX_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), "", f"is not UTF-8 text (byte {error.start})")]) from None
    except OSError as error:
        raise ConfigError([Fault(str(path), "", f"cannot be read ({error.strerror})")]) from None
    return parse(text, str(path)), text, path.resolve().parent


def _from_mapping(source: Mapping[str, Any]) -> tuple[Document, str, Path]:
    """A dict goes through YAML as well, so that what is kept of a run says what was run."""
    try:
        text = dump(copy.deepcopy(dict(source)))
    except (yaml.YAMLError, TypeError) as error:
        raise ConfigError([Fault("config", "", f"only plain values can stand in a config: {error}")]) from None
    except RecursionError:
        raise ConfigError([Fault("config", "", "nested too deeply")]) from None
    document = parse(text, "config")
    return Document("config", document.data, faults=document.faults), text, Path.cwd()


# The short spellings of the vocabulary: `adapter: lora` stands for `adapter: {type: lora}`, and so on.
SHORT = (
    ("adapter", "type"),
    ("backend", "type"),
    ("dataset", "path"),
    ("trainer.optimizer", "type"),
    ("preprocessing.split", "type"),
)
_RENAMED = (("model_name", "base_model"), ("model_parameters.rope_scaling.type", "rope_type"))


def _shorten(document: Document) -> list[Fault]:
    """Replace short and older spellings in the raw mapping by the full ones; a key in both spellings is a fault."""
    faults = []
    for path, key in SHORT:
        *parents, last = path.split(".")
        for _, holder in availability.values_at(document.data, tuple(parents)):
            if isinstance(holder, dict) and isinstance(holder.get(last), str):
                holder[last] = {key: holder[last]}
    for path, name in _RENAMED:
        *parents, old = path.split(".")
        for at, holder in availability.values_at(document.data, tuple(parents)):
            if not isinstance(holder, dict) or old not in holder:
                continue
            value, line = holder.pop(old), document.lines.get((*at, old))
            if name in holder and line != 0:  # an override goes before what stands in the file
                place = document.place((*at, old))
                faults.append(Fault(place, dotted((*at, old)), f"means the same as {name}; give one of them"))
            else:
                holder[name] = value
                document.lines |= {} if line is None else {(*at, name): line}
    if document.data.get("adapters", ...) is None:
        del document.data["adapters"]
    return faults


def _lay(document: Document, override: str) -> list[Fault]:
    """Lay one `key=value` into the raw mapping."""
    path, equals, value = override.partition("=")
    if not equals or not path.strip():
        return [Fault("command line", override, "expected key=value, such as trainer.epochs=3")]
    keys = path.strip().replace("[", ".").replace("]", "").split(".")
    try:
        laid = parse(value, "command line")
    except ConfigError as error:
        return [Fault("command line", path, error.faults[0].message)]
    if laid.faults:
        return [Fault("command line", path, f"{fault.path} stands twice") for fault in laid.faults]
    here: Any = document.data
    at: tuple[str | int, ...] = ()
    for position, key in enumerate(keys):
        step: str | int = int(key) if isinstance(here, list) and key.isdecimal() else key
        at = (*at, step)
        if isinstance(here, list) and (not isinstance(step, int) or step >= len(here)):
            return [Fault("command line", path, f"there is no item {key} in {dotted(at[:-1])}, which has {len(here)}")]
        if not isinstance(here, (dict, list)):
            return [Fault("command line", path, f"{dotted(at[:-1])} is {here!r}, not a section")]
        document.lines[at] = 0 if position == len(keys) - 1 else document.lines.get(at, 0)
        if position == len(keys) - 1:
            document.lines = {path: line for path, line in document.lines.items() if path[:-1][: len(at)] != at}
            here[step] = laid.data  # type: ignore[index]
        elif isinstance(here, dict):
            if here.get(step) is None:
                here[step] = {}
            here = here[step]
        else:
            here = here[step]  # type: ignore[index]
    return []


def _validate(document: Document) -> tuple[Config | None, list[Fault]]:
    """The Config, or all faults: pydantic's, then those between keys in what is left."""
    faults: list[Fault] = []
    data = copy.deepcopy(document.data)
    config = None
    cut: set[KeyPath] = set()
    for _ in range(4):  # cutting a fault out can uncover another, seldom more than one
        try:
            config = Config.model_validate(data)
            break
        except ValidationError as error:
            found = [(path, said) for path, said in to_faults(Config, error, data) if path not in cut]
            cut |= {path for path, _ in found}
            faults += [Fault(document.place(path), dotted(path), said) for path, said in found]
            data = prune(data, [path for path, _ in found])
            data |= {key: "llm" for key in ("model_type", "base_model") if key not in data}  # no rule looks at these
    for key, at, value in availability.set_keys(Config, document.data, (path for path, _ in availability.NOT_YET)):
        allowed = dict(availability.NOT_YET)[key]
        if value not in allowed and at not in cut and at[:-1] not in cut:
            shown = f"{value!r} is " if not isinstance(value, (dict, list)) else ""
            also = f" (there is: {', '.join(str(one) for one in allowed if one != {})})" if any(allowed) else ""
            faults.append(Fault(document.place(at), dotted(at), f"{shown}not available yet{also}"))
    if config is not None:
        for path, said in crosschecks.run(config, data):
            if not any(path[: len(gone)] == gone for gone in cut):  # what was cut out is not missing as well
                faults.append(Fault(document.place(path), dotted(path), said))
    return config, faults


def _in_order(faults: list[Fault]) -> list[Fault]:
    """Without repeats, by line."""

    def line(fault: Fault) -> tuple[int, str]:
        number = fault.place.rpartition(":")[2]
        return (int(number) if number.isdecimal() else 0, fault.path)

    return sorted(dict.fromkeys(faults), key=line)


def _without_effect(document: Document, config: Config) -> list[str]:
    """Warnings about keys that are set but change nothing."""
    why = dict(availability.NO_EFFECT)
    keys = availability.set_keys(Config, document.data, iter(why))
    idle = [f"{document.place(at)}: {dotted(at)}: {said}" for at, said in crosschecks.idle(config)]
    return idle + [f"{document.place(at)}: {dotted(at)}: has no effect: {why[key]}" for key, at, _ in keys]
