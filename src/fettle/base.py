"""A run's base model as a value: where it lies, what it says of itself, its tokenizer. No weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fettle.config import Config
from fettle.data.encode import encode_rows
from fettle.model.source import PRESETS, BaseFacts, facts, locate
from fettle.prepare import make_renderer
from fettle.rows import Row
from fettle.tokenizer import Tokenizer, read_tokenizer


@dataclass(frozen=True)
class Base:
    """Folder, facts and tokenizer of a base model."""

    folder: Path
    facts: BaseFacts
    tokenizer: Tokenizer
    reference: str
    """How the base is named from anywhere: a hub id, an absolute path, or `fettle:pocket`."""

    @property
    def loadable(self) -> str:
        """The same for libraries that do not know Fettle: a hub id or an absolute path."""
        return str(self.folder.resolve()) if self.reference.startswith("fettle:") else self.reference


def find(config: Config, folder: Path, weights: bool = True) -> Base:
    """Find the base model of a config.

    Raises:
        MissingFileError, ModelError: it is not there, or cannot be used.
    """
    name = config.base_model
    where = locate(name, folder, weights)
    local = (folder / name).is_dir() or Path(name).is_dir()
    return Base(
        where,
        facts(name, where, weights),
        read_tokenizer(where),
        str(where.resolve()) if local else PRESETS.get(name, name),
    )


def at(folder: Path, reference: str) -> Base:
    """A model whose weights and tokenizer both lie in a folder."""
    return Base(folder, facts(reference, folder), read_tokenizer(folder), reference)


def stop_ids(config: Config, row_format: str, tokenizer: Tokenizer, folder: Path) -> list[int]:
    """Ids at which an answer ends: the tokenizer's, and what the chat template closes an assistant turn with."""
    stops = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    made = make_renderer(config, row_format, tokenizer, folder)
    if made.chat is not None:
        turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
        [encoded] = encode_rows([made.finished(Row({}, messages=turns))], tokenizer)
        last = [i for i, trained in zip(encoded.ids, encoded.trained, strict=True) if trained][-1]
        if last in tokenizer.special_ids and last not in stops:
            stops.append(last)
    return stops
