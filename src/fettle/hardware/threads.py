"""How torch's worker threads wait for each other; to be settled before torch is imported."""

from __future__ import annotations

import os


def wait_briefly() -> None:
    """Let idle OpenMP threads sleep after a short spin, unless the user has said otherwise.

    GNU's OpenMP spins for milliseconds by default. Where another process wants one of the cores, the spinning threads take
    turns with the one they wait for, and small models train ten times slower (docs/performance.md has the figures).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
