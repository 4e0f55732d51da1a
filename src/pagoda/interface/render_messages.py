"""Answers and events in Anthropic's form (``/v1/messages``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from pydantic_core import from_json

from pagoda.core.types import CallDelta, Delta, Event, Finish, FinishReason, Started, Usage
from pagoda.interface.problems import anthropic_shape
from pagoda.interface.sse import Style, typed_frame
from pagoda.logic.inference.answer import Answer
from pagoda.service.note import answer_id

STYLE = Style(
    keep_alive=typed_frame({"type": "ping"}),
    problem=lambda status, message, code, param: typed_frame(anthropic_shape(status, message)),
)
_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def usage_json(usage: Usage) -> dict[str, Any]:
    """Token usage; what came from the cache is not counted a second time as input."""
    shown: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
    }
    return shown | (
        {"output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}} if usage.reasoning_tokens else {}
    )


def _ending(reason: FinishReason, stop: str | None) -> dict[str, Any]:
    return {"stop_reason": _REASONS[reason] if stop is None else "stop_sequence", "stop_sequence": stop}


def _block(kind: str, text: str = "") -> dict[str, Any]:
    return {"type": "text", "text": text} if kind == "text" else {"type": "thinking", "thinking": text, "signature": ""}


def _call(id: str, name: str, arguments: str = "") -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": _complete_part(arguments)}


def _complete_part(arguments: str) -> dict[str, Any]:
    """The arguments of a call; of one that was cut off those before the cut, as Anthropic's client reads a stream."""
    try:
        given = from_json(arguments or "{}", allow_partial=True)
    except ValueError:
        return {}  # the door lets broken JSON through only where the answer was cut, which the stop reason tells
    return given if isinstance(given, dict) else {}


def _envelope(model: str, warnings: tuple[str, ...]) -> dict[str, Any]:
    head = {"id": answer_id("msg"), "type": "message", "role": "assistant", "model": model, "content": []}
    return head | ({"warnings": warnings} if warnings else {})


def message_json(answer: Answer, warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    """A whole answer."""
    choice = answer.choices[0]
    parts = (("thinking", choice.reasoning), ("text", choice.text))
    return {
        **_envelope(answer.model, answer.warnings + warnings),
        "content": [
            *(_block(kind, text) for kind, text in parts if text),
            *(_call(call.id, call.name, call.arguments) for call in choice.calls),
        ],
        **_ending(choice.finish, choice.stop),
        "usage": usage_json(answer.usage),
    }


class MessageWriter:
    """Turns events into the frames of one streamed message."""

    def __init__(self, warnings: tuple[str, ...] = ()) -> None:
        self._warnings = warnings
        self._kind = ""
        self._index = -1
        self._finish = Finish(0, "stop")

    async def frames(self, events: AsyncIterator[Event], first: Event | None) -> AsyncIterator[bytes]:
        """All frames of an answer whose first event was taken already (so that its failure has an HTTP status)."""
        async with aclosing(events) as rest:  # type: ignore[type-var]
            if isinstance(first, Started):
                message = _envelope(first.model, first.warnings + self._warnings)
                message |= {"stop_reason": None, "stop_sequence": None, "usage": usage_json(Usage(0))}
                yield typed_frame({"type": "message_start", "message": message})
            async for event in rest:
                for block in self._event(event):
                    yield block

    def _event(self, event: Event) -> Iterator[bytes]:
        match event:
            case Delta(_, text, _, reasoning):
                if reasoning:
                    yield from self._write("thinking", {"type": "thinking_delta", "thinking": reasoning})
                if text:
                    yield from self._write("text", {"type": "text_delta", "text": text})
            case CallDelta(_, place, arguments, id, name):
                delta = {"type": "input_json_delta", "partial_json": arguments}
                yield from self._write(f"call {place}", delta, _call(id, name))
            case Finish():
                self._finish = event
            case Usage():
                yield from self._close()
                ending = _ending(self._finish.reason, self._finish.stop)
                yield typed_frame({"type": "message_delta", "delta": ending, "usage": usage_json(event)})
                yield typed_frame({"type": "message_stop"})

    def _write(self, kind: str, delta: dict[str, str], block: dict[str, Any] | None = None) -> Iterator[bytes]:
        if kind != self._kind:
            yield from self._close()
            self._kind, self._index = kind, self._index + 1
            opening = {"type": "content_block_start", "index": self._index, "content_block": block or _block(kind)}
            yield typed_frame(opening)
        yield typed_frame({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> Iterator[bytes]:
        if self._kind == "thinking":
            signature = {"type": "signature_delta", "signature": ""}
            yield typed_frame({"type": "content_block_delta", "index": self._index, "delta": signature})
        if self._kind:
            yield typed_frame({"type": "content_block_stop", "index": self._index})
        self._kind = ""
