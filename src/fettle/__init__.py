"""Fettle: from a model, a table of examples and one YAML to a fine-tuned language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fettle.api import Model as Model
    from fettle.config import load as load_config
    from fettle.errors import FettleError as FettleError
    from fettle.training.callbacks import Callback as Callback

__version__ = "0.1.0"
__all__ = ["Callback", "FettleError", "Model", "__version__", "load_config"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that a light verb loads nothing heavy."""
    if name == "Model":
        from fettle.hardware.threads import wait_briefly

        wait_briefly()
        from fettle.api import Model

        return Model
    if name == "load_config":
        from fettle.config import load

        return load
    if name == "FettleError":
        from fettle.errors import FettleError

        return FettleError
    if name == "Callback":
        from fettle.training.callbacks import Callback

        return Callback
    raise AttributeError(f"module 'fettle' has no attribute {name!r}")
