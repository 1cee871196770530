"""The `backend` section: where a run is carried out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fettle.section import Section


class LocalBackend(Section):
    """One process on this machine."""

    type: Literal["local"]
    """`local`: one process on this machine."""
    cache_dir: str | None = None
    """Folder of the cache of tokenised rows; null means `$FETTLE_CACHE`, or `~/.cache/fettle`."""
    credentials: dict[str, Any] | None = None
    """Credentials for remote storage, by scheme."""


class RayProcessor(Section):
    """How Ray reads the data."""

    type: Literal["dask", "modin"] = "dask"
    """The data frame library that does the work."""
    parallelism: Annotated[int, Field(ge=1)] | None = None
    """Number of partitions."""
    persist: bool = True
    """Keep intermediate frames in memory."""


class RayTrainer(Section):
    """How Ray trains."""

    strategy: str | dict[str, Any] = "accelerate"
    """`accelerate`, `ddp`, `fsdp`, `deepspeed` or `local`, or a section with that as `type`."""
    use_gpu: bool | None = None
    """Give each worker a GPU; null means when there is one."""
    num_workers: Annotated[int, Field(ge=1)] | None = None
    """Number of worker processes."""
    resources_per_worker: dict[str, float] | None = None
    """CPUs and GPUs of one worker (`CPU`, `GPU`)."""
    logdir: str | None = None
    """Where the workers log."""
    max_retries: Annotated[int, Field(ge=0)] = 3
    """How often a failed worker is started again."""


class RayBackend(Section):
    """Several processes through Ray."""

    type: Literal["ray"]
    """`ray`: several processes through Ray."""
    processor: RayProcessor = RayProcessor()
    """How the data is read."""
    trainer: RayTrainer = RayTrainer()
    """How training is spread."""
    loader: dict[str, Any] = Field(default_factory=dict)
    """Options of Ray's data loader."""
    preprocessor_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of Ray's preprocessing."""
    cache_dir: str | None = None
    """Folder of the cache of tokenised rows."""
    cache_credentials: dict[str, Any] | None = None
    """Credentials for a remote cache."""


class DeepspeedBackend(Section):
    """Several processes through DeepSpeed."""

    type: Literal["deepspeed"]
    """`deepspeed`: several processes through DeepSpeed."""
    zero_optimization: dict[str, Any] | None = None
    """DeepSpeed's section of the same name."""
    fp16: dict[str, Any] | None = None
    """DeepSpeed's section of the same name."""
    bf16: dict[str, Any] | None = None
    """DeepSpeed's section of the same name."""


Backend = Annotated[LocalBackend | RayBackend | DeepspeedBackend, Field(discriminator="type")]
