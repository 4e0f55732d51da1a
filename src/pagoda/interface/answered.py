"""Answers of models as HTTP tells them, whole or as a stream: who gave them, what the cache did. Not their JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from pagoda.core.types import CacheUse, Event, Started
from pagoda.interface.context import Backstage, json_response
from pagoda.interface.sse import OPENAI, EventStream, Style


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer as JSON, and what the cache did for it."""

    body: dict[str, Any]
    cache: CacheUse

    def response(self) -> Response:
        """As HTTP tells it."""
        return json_response(self.body, answer_headers(self.body["model"], self.cache))


def answer_headers(model: str, cache: CacheUse) -> dict[str, str]:
    """The headers of an answer: who gave it, and whether an engine computed it for this request."""
    return {"X-Pagoda-Model": model, "X-Cache": cache}


def answer_stream(
    stage: Backstage,
    frames: AsyncIterator[bytes],
    model: str,
    first: Event | None,
    style: Style = OPENAI,
    *,
    alone: bool = True,
) -> EventStream:
    """An answer as a stream, by its first event: another model may have stood in for the one that was asked, and a kept
    answer that is given again is all there already, if it is ``alone`` and none follows that was not asked for yet."""
    replayed, headers = alone and is_replayed(first), answer_headers(model, "bypass")
    if isinstance(first, Started):
        headers = answer_headers(first.model, first.cache)
    return EventStream(frames, stage.settings.server.keepalive_seconds, headers, style, replayed=replayed)


def is_replayed(first: Event | None) -> bool:
    """Whether a kept answer is given again, by its first event."""
    return isinstance(first, Started) and first.replayed
