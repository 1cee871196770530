"""A profile of some training steps, for `chrome://tracing` and Perfetto."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from fettle.training.config import Profiler


def profiler(section: Profiler, enabled: bool, folder: Path) -> AbstractContextManager[Any]:
    """A context whose value has `step()`; it writes `steps-<n>.json` into the folder after each recording."""
    if not enabled:
        return nullcontext(_Nothing())
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    plan = torch.profiler.schedule(
        wait=section.wait,
        warmup=section.warmup,
        active=section.active,
        repeat=section.repeat,
        skip_first=section.skip_first,
    )
    return torch.profiler.profile(activities=activities, schedule=plan, on_trace_ready=_writer(folder), acc_events=True)


def _writer(folder: Path) -> Callable[[torch.profiler.profile], None]:
    def write(profile: torch.profiler.profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(folder / f"steps-{profile.step_num}.json"))

    return write


class _Nothing:
    """Stands in for a profiler that was not asked for."""

    def step(self) -> None:
        """Nothing is recorded."""
