"""A whole answer, for callers that do not stream."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field, replace

from pagoda.core.errors import BadOutput, Unavailable
from pagoda.core.ports import Inference
from pagoda.core.types import CacheUse, Call, Delta, Finish, FinishReason, Generation, Started, TokenLogprob, Usage


@dataclass(slots=True)
class Choice:
    """One of an answer's alternatives."""

    text: str = ""
    reasoning: str = ""
    finish: FinishReason = "stop"
    stop: str | None = None
    """The stop sequence that ended it, where the engine tells."""
    logprobs: list[TokenLogprob] = field(default_factory=list)


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
    try:
        return await _collect_once(inference, request, call)
    except BadOutput:  # the broken answer may have been kept: it was the engine's
        again = replace(call, parent=call.request_id)  # the caller has asked once
        if call.cache not in ("bypass", "only"):
            again = replace(again, cache="refresh")
        return await _collect_once(inference, request, again)


async def _collect_once(inference: Inference, request: Generation, call: Call) -> Answer:
    choices = [Choice() for _ in range(request.n)]
    started: Started | None = None
    usage: Usage | None = None
    async with aclosing(inference.complete(request, call)) as events:  # type: ignore[type-var]
        async for event in events:
            match event:
                case Delta(index, text, logprobs, reasoning):
                    choices[index].text += text
                    choices[index].reasoning += reasoning
                    choices[index].logprobs += logprobs
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
