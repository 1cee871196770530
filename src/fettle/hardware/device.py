"""The device that the installed torch can use."""

from __future__ import annotations

import torch

from fettle.hardware import facts
from fettle.hardware.facts import DeviceFacts


def usable() -> DeviceFacts:
    """The GPU where torch can use it, else the CPU: a CPU build of torch on a machine with a GPU is common."""
    found = facts.device()
    return found if found.kind == "cpu" or torch.cuda.is_available() else facts.cpu()
