"""``/api/v1/runs``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from pagoda.interface.schemas.shared import Shape


class RunObject(Shape):
    """A run; what else its record holds comes along."""

    model_config = ConfigDict(extra="allow")

    id: str
    kind: str
    status: str
    config: dict[str, Any]
    error: str | None = None


class RunList(Shape):
    """Runs, newest first."""

    object: Literal["list"]
    data: list[RunObject]
