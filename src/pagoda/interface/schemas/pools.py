"""``/api/v1/pools``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pagoda.interface.schemas.shared import Shape


class ReplicaRequest(Shape):
    """A replica that joins a pool at run time: an OpenAI address, or a model of this machine."""

    model: str = Field(min_length=1, max_length=500, description="Name of the model, at the address or here.")
    url: str = Field("", max_length=2000, description="OpenAI-compatible address up to /v1; empty: a model from here.")
    key_env: str = Field("", max_length=200, description="Environment variable of the service that holds its key.")
    weight: float = Field(1.0, ge=0.01, le=1000)
    zone: str = Field("", max_length=200)


class ReplicaState(Shape):
    """A replica as it is now."""

    id: str
    model: str
    url: str
    engine: str
    origin: Literal["settings", "dns", "api"]
    weight: float
    zone: str
    state: Literal["up", "starting", "draining", "dead", "wedged"]
    circuit: Literal["closed", "open", "half_open"]
    usable: bool
    reason: str
    """Why it is not usable; empty when it is."""
    outstanding: int
    capacity: int
    attempts: dict[str, int]
    """Requests that were sent there, by outcome."""


class PoolState(Shape):
    """A pool with its replicas."""

    name: str
    task: Literal["chat", "completion", "embedding"]
    policy: str
    interrupted: Literal["continue", "error"]
    fallbacks: list[str]
    capacity: int
    replicas: list[ReplicaState]


class PoolList(Shape):
    """All pools."""

    object: Literal["list"] = "list"
    data: list[PoolState]
