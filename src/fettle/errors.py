"""The exceptions a user can meet: each is a FettleError and the builtin it resembles.

FettleError
├── ConfigError         the YAML, an override or a flag is wrong (ValueError); `.faults` holds every one
├── DataError           a row, column or file of the data is wrong (ValueError)
├── ModelError          the base model or its tokenizer cannot be used (ValueError)
├── MissingFileError    a path that does not exist (FileNotFoundError)
├── OutputExistsError   an output that would be overwritten (FileExistsError)
├── StorageError        the disk refuses: full, read-only (OSError)
├── MissingExtraError   an optional package is not installed (ImportError)
├── DivergedError       the loss is no longer a number (ArithmeticError)
└── OutOfMemoryError    not even one example fits the device (MemoryError)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class FettleError(Exception):
    """A fault that its reader can mend; the message names the place and the mend."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a config: where it stands (`run.yaml:7`), the key's path, and what was expected."""

    place: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.path, self.message) if part)


class ConfigError(FettleError, ValueError):
    """One or more faults of the configuration, all of them found in one go."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class DataError(FettleError, ValueError):
    """A fault of the data; the message names file and row."""


class ModelError(FettleError, ValueError):
    """A base model or tokenizer that cannot be used."""


class MissingFileError(FettleError, FileNotFoundError):
    """A path that does not exist."""


class OutputExistsError(FettleError, FileExistsError):
    """An output that Fettle would have to overwrite."""


class StorageError(FettleError, OSError):
    """The disk refuses a write."""


class MissingExtraError(FettleError, ImportError):
    """An optional package is not installed."""


class DivergedError(FettleError, ArithmeticError):
    """The loss is no longer a number."""


class OutOfMemoryError(FettleError, MemoryError):
    """Not even one example fits the device."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the known word closest to `word`, or an empty string when none is close."""
    close = difflib.get_close_matches(word, [str(name) for name in known], n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""
