"""What this machine has; asked without torch, so that `check` can tell before anything heavy is loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class DeviceFacts:
    """The device a run will use. Sizes in bytes."""

    kind: str
    """`cpu` or `cuda`."""
    name: str
    memory: int
    """Memory that can be had now."""
    cores: int
    bfloat16: bool
    """Whether bfloat16 arithmetic is native."""

    @property
    def shown(self) -> str:
        return f"{self.name}, {self.memory / 2**30:.1f} GiB free"


def device() -> DeviceFacts:
    """The first GPU that the driver shows, else the CPU."""
    return _gpu() or cpu()


def _gpu() -> DeviceFacts | None:
    """The first GPU that this process may see; None where there is none or the driver does not tell."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1") or not shutil.which("nvidia-smi"):
        return None
    asked = [
        "nvidia-smi",
        f"--id={visible}",
        "--query-gpu=name,memory.free,compute_cap",
        "--format=csv,noheader,nounits",
    ]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)  # noqa: S603
        name, free, capability = (part.strip() for part in answer.stdout.strip().splitlines()[0].split(","))
        return DeviceFacts("cuda", name, int(free) * 2**20, _cores(), float(capability) >= 8.0)
    except (subprocess.TimeoutExpired, OSError, IndexError, ValueError):
        return None


def cpu() -> DeviceFacts:
    """This machine's processor."""
    cores = _cores()
    return DeviceFacts("cpu", f"CPU with {cores} cores", _free_memory(), cores, False)


def _cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _free_memory() -> int:
    """Free memory of the machine, or of the container where that is less."""
    free: int = psutil.virtual_memory().available
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            text = limit.read().strip()
            if text != "max":
                free = min(free, int(text) - int(used.read()))
    except OSError:
        pass  # no control groups here: the machine's own figure stands
    return free
