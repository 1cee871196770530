"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fettle.errors import StorageError


@contextlib.contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn a disk that refuses (full, read-only, forbidden) into a StorageError that names the path."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        # the libraries that write weights wrap what the system said
        if not any(sign in str(error) for sign in ("os error 28", "No space left", "os error 27", "unexpected pos")):
            raise
        raise StorageError(f"{path}: the disk is full; free some space. Nothing was half-written.") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if (
            not full
            and error.errno
            not in (
                errno.EROFS,
                errno.EACCES,
                errno.EPERM,
                errno.EIO,
                errno.ENOTDIR,
                errno.EISDIR,
                errno.EEXIST,
                errno.ENAMETOOLONG,
                errno.EFBIG,
            )
            and path.parent.is_dir()
        ):
            raise
        why = "the disk is full; free some space" if full else f"cannot be written ({os.strerror(error.errno or 0)})"
        raise StorageError(f"{path}: {why}. Nothing was half-written.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    with disk_faults(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes the final name when the block ends well."""
    temporary = path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name}")  # keeps the ending: some writers go by it
    with disk_faults(path):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the final name, replacing what was there, when the block ends well."""
    temporary = path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name}")
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            _sync(temporary)
            if path.exists():
                old = path.with_name(f".old-{uuid.uuid4().hex[:8]}-{path.name}")
                path.rename(old)
                try:
                    temporary.rename(path)
                except OSError:
                    old.rename(path)
                    raise
                shutil.rmtree(old)
            else:
                temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def recover(folder: Path) -> None:
    """Tidy a folder after a process was killed in it: what was half-written goes, what was about to be replaced comes back."""
    for path in folder.glob(".old-*"):
        final = folder / path.name.split("-", 2)[2]
        if final.exists():
            shutil.rmtree(path)
        else:
            path.rename(final)
    for path in folder.glob(".part-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
