"""What an engine's failure says about its replica, and whether another one should be asked."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pagoda.core.errors import ModelError, ModelTimeout, Overloaded, Unavailable
from pagoda.model.engines.openai import UNREACHABLE

Outcome: TypeAlias = Literal["ok", "client", "cancelled", "overload", "refused", "death", "timeout", "failure"]
"""``client``: the request's own fault, which any replica would find. ``refused``: this replica cannot serve at all (a
wrong key, no memory), which time alone does not heal."""
OUTCOMES: tuple[Outcome, ...] = ("ok", "client", "cancelled", "overload", "refused", "death", "timeout", "failure")

REFUSED_SECONDS = 15.0
_OVERLOAD_SECONDS = 1.0


def outcome_of(error: ModelError) -> Outcome:
    """The meaning of an error for the replica that gave it."""
    if isinstance(error, Overloaded) or error.retry_after is not None:
        return "overload"
    if isinstance(error, ModelTimeout):
        return "timeout"
    if isinstance(error, Unavailable):
        if error.code == UNREACHABLE:
            return "death"
        return "failure" if error.retryable else "refused"
    return "client"


def rest_after(error: ModelError) -> float:
    """How long an overloaded replica is left alone, seconds."""
    return _OVERLOAD_SECONDS if error.retry_after is None else min(error.retry_after, 60.0)
