"""A whole answer, for callers that do not stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from pagoda.core.errors import BadOutput, Unavailable
from pagoda.core.ports import Inference
from pagoda.core.types import (
    CacheUse,
    Call,
    CallDelta,
    Delta,
    Event,
    Finish,
    FinishReason,
    Generation,
    Started,
    TokenLogprob,
    Usage,
)


@dataclass(slots=True)
class ToolCall:
    """A call that the model wants made."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    """JSON text."""

    def message(self) -> dict[str, Any]:
        """As an assistant's message tells it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(slots=True)
class Choice:
    """One of an answer's alternatives."""

    text: str = ""
    reasoning: str = ""
    finish: FinishReason = "stop"
    stop: str | None = None
    """The stop sequence that ended it, where the engine tells."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def add(self, piece: CallDelta) -> None:
        """More of a tool call; calls come in order."""
        while len(self.calls) <= piece.place:
            self.calls.append(ToolCall())
        call = self.calls[piece.place]
        call.id, call.name = call.id or piece.id, call.name or piece.name
        call.arguments += piece.arguments


@dataclass(slots=True)
class Answer:
    """Everything that a generation gave."""

    model: str
    engine: str
    warnings: tuple[str, ...]
    choices: list[Choice]
    usage: Usage
    cache: CacheUse = "bypass"

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text


async def collect(inference: Inference, request: Generation, call: Call) -> Answer:
    """The whole answer. One that breaks its demanded form is asked for once more; then ``BadOutput`` is raised."""
    if not call.whole:
        call = replace(call, whole=True)
    try:
        return await gather(inference.complete(request, call), request)
    except BadOutput:  # the broken answer may have been kept: it was the engine's
        again = replace(call, parent=call.request_id)  # the caller has asked once
        if call.cache not in ("bypass", "only"):
            again = replace(again, cache="refresh")
        return await gather(inference.complete(request, again), request)


async def gather(events: AsyncIterator[Event], request: Generation) -> Answer:
    """The whole answer from its events. Raises ``Unavailable`` when it breaks off."""
    choices = [Choice() for _ in range(request.n)]
    started: Started | None = None
    usage: Usage | None = None
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            match event:
                case Delta(index, text, logprobs, reasoning):
                    choices[index].text += text
                    choices[index].reasoning += reasoning
                    choices[index].logprobs += logprobs
                case CallDelta(index):
                    choices[index].add(event)
                case Finish(index, reason, stop):
                    choices[index].finish = reason
                    choices[index].stop = stop
                case Started():
                    started = event
                case Usage():
                    usage = event
    if started is None or usage is None:
        raise Unavailable(f"{request.model} ended its answer before it was complete.")
    return Answer(started.model, started.engine, started.warnings, choices, usage, started.cache)
