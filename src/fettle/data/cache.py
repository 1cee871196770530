"""Where encoded rows are kept; asked without the libraries that read them."""

from __future__ import annotations

import os
from pathlib import Path

from fettle.hardware.config import Backend, LocalBackend

ABOUT = "about.json"
"""Written with the arrays, in a folder that appears whole; its presence says that they are there."""


def rows_folder(backend: Backend, fingerprint: str) -> Path:
    """Folder of the encoded rows of a fingerprint, under `backend.cache_dir`, `$FETTLE_CACHE` or `~/.cache/fettle`."""
    configured = backend.cache_dir if isinstance(backend, LocalBackend) else None
    cache = Path(configured or os.environ.get("FETTLE_CACHE") or Path.home() / ".cache" / "fettle")
    return cache / "rows" / fingerprint


def is_kept(folder: Path) -> bool:
    """Whether a folder holds encoded rows."""
    return (folder / ABOUT).is_file()
