"""``/api/v1/models``: models in memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pagoda.interface.schemas.shared import Shape, Strict


class LoadRequest(Strict):
    """How to load a model; all of it may be left out."""

    pull: bool = Field(False, description="Fetch the model's files first when they are not here.")
    pinned: bool | None = Field(None, description="Whether it stays when others need its memory.")
    keep_alive: float | None = Field(
        None, ge=0, le=31_536_000, description="Idle time after which it leaves memory, seconds; 0 means never."
    )
    stream: bool = Field(False, description="Tell each step as a server-sent event.")


class UnloadRequest(Strict):
    """How to unload a model."""

    stream: bool = Field(False, description="Tell each step as a server-sent event.")


class ModelStep(Shape):
    """How far loading or unloading has come; also the final answer without streaming."""

    model: str
    state: str
    reason: str = ""
    stage: str = Field("", description="Of `pulling`: what is done now; `done` in the last step.")
    done: int = 0
    total: int | None = None
    at: float = Field(description="Unix time, seconds.")


class Pools(Shape):
    """Bytes in each pool of memory."""

    host: int
    gpu: int


class Need(Shape):
    """An estimate, bytes."""

    weights: int
    kv_cache: int
    overhead: int
    on_gpu: bool
    asleep: Pools | None = None
    """What it keeps while it sleeps."""


class ModelInMemory(Shape):
    """A model, its state, and its memory in bytes."""

    id: str
    task: str
    engine: str
    state: Literal["absent", "broken", "pulling", "unloaded", "loading", "ready", "draining", "asleep", "failed"]
    reason: str
    pid: int | None = None
    pinned: bool = False
    in_flight: int = 0
    waiting: int = 0
    loads: int = 0
    restarts: int = 0
    context: int | None = None
    parallel: int = 0
    kv_type: str = ""
    idle_seconds: float | None = None
    need: Need | None = None
    held: Pools | None = None
    used: Pools | None = None


class MemoryAnswer(Shape):
    """All models, and the memory they share."""

    object: Literal["list"]
    budget: Pools
    held: Pools
    data: list[ModelInMemory]
