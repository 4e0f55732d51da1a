"""Answers and events in the form of OpenAI's ``/v1/responses``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence, Sized
from contextlib import aclosing
from typing import Any

from pagoda.core.errors import ContextTooLong, Overloaded, PagodaError, UserError
from pagoda.core.types import CallDelta, Delta, Event, Finish, FinishReason, Started, TokenLogprob, Usage, new_id
from pagoda.interface.render import chat_logprobs
from pagoda.interface.schemas.responses import ResponsesRequest
from pagoda.interface.sse import typed_frame
from pagoda.logic.inference.answer import Answer, ToolCall
from pagoda.service.note import answer_id

_CUT: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


def usage_json(usage: Usage) -> dict[str, Any]:
    """Token usage."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class Draft:
    """What is known of a response before its answer: everything that was asked for, given back."""

    def __init__(self, body: ResponsesRequest) -> None:
        self.wants_logprobs = body.wants_logprobs
        form = None if body.text is None or body.text.format is None else body.text.format
        shown = {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
        if form is not None and form.type != "json_schema":
            shown = {"type": form.type}
        choice = body.tool_choice or ("auto" if body.tools else "none")
        self._fields = {
            "id": answer_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "background": False,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": bool(body.tools) and body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": body.temperature,
            "text": {"format": shown},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs,
            "top_p": body.top_p,
            "truncation": "disabled",
            "user": body.user,
        }

    def answered_by(self, started: Started) -> None:
        """Note what answers."""
        self._fields |= {"model": started.model} | ({"warnings": started.warnings} if started.warnings else {})

    def json(
        self, status: str, output: Sequence[dict[str, Any]], usage: Usage | None, **ending: dict[str, Any]
    ) -> dict[str, Any]:
        """The response as it stands."""
        shown = None if usage is None else usage_json(usage)
        return {
            **self._fields,
            "status": status,
            "output": list(output),
            "usage": shown,
            "error": None,
            "incomplete_details": None,
            **ending,
        }

    def ended(self, reason: FinishReason, output: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """The complete response, or one that was cut."""
        if reason in _CUT:
            return self.json("incomplete", output, usage, incomplete_details={"reason": _CUT[reason]})
        return self.json("completed", output, usage)

    def item(self, kind: str, status: str, item_id: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """An item of the output: the ``message``, or the ``reasoning`` before it."""
        head: dict[str, Any] = {"id": item_id, "type": kind, "status": status, "content": list(parts)}
        if kind == "message":
            return head | {"role": "assistant"}
        return head | {"summary": []}

    def call(self, status: str, item_id: str, call: ToolCall) -> dict[str, Any]:
        """A function call of the output."""
        told = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        return {"id": item_id, "type": "function_call", "status": status, **told}

    def part(self, kind: str, text: str, logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
        """The one part of an item."""
        if kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        shown = self.logprobs(logprobs)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": shown}

    def logprobs(self, tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        """Log-probabilities, if they were asked for."""
        content: list[dict[str, Any]] = chat_logprobs(tokens)["content"] if self.wants_logprobs else []
        return content


def response_json(draft: Draft, answer: Answer) -> dict[str, Any]:
    """A whole answer."""
    draft.answered_by(Started(answer.model, answer.engine, answer.warnings))
    choice = answer.choices[0]
    output = []
    if choice.reasoning:
        part = draft.part("reasoning", choice.reasoning)
        output.append(
            draft.item("reasoning", _status(choice.finish, choice.text or choice.calls), new_id("rs"), [part])
        )
    if choice.text or not choice.calls:
        part = draft.part("message", choice.text, choice.logprobs)
        output.append(draft.item("message", _status(choice.finish, choice.calls), new_id("msg"), [part]))
    for after, call in enumerate(choice.calls, 1):
        output.append(draft.call(_status(choice.finish, choice.calls[after:]), new_id("fc"), call))
    return draft.ended(choice.finish, output, answer.usage)


def _status(reason: FinishReason, later: Sized = ()) -> str:
    """An item's status: an answer that was cut was cut in its last one."""
    return "incomplete" if reason in _CUT and not later else "completed"


class ResponseWriter:
    """Turns events into the typed frames of one streamed response."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._number = -1
        self._output: list[dict[str, Any]] = []
        self._kind = ""
        self._item_id = ""
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._call = ToolCall()
        self._called = False
        self._pieces = 0
        self._reason: FinishReason = "stop"

    async def frames(self, events: AsyncIterator[Event], first: Event | None) -> AsyncIterator[bytes]:
        """All frames of an answer whose first event was taken already; a failure is a terminal event with usage too."""
        if isinstance(first, Started):
            self._draft.answered_by(first)
        for kind in ("response.created", "response.in_progress"):
            yield self._frame(kind, response=self._draft.json("in_progress", (), None))
        try:
            async with aclosing(events) as rest:  # type: ignore[type-var]
                async for event in rest:
                    for block in self._event(event):
                        yield block
        except PagodaError as error:
            problem = {"code": _code_of(error), "message": error.message}
            usage = Usage(0, self._pieces)
            failed = self._draft.json("failed", self._output, usage, error=problem)
            yield self._frame("response.failed", response=failed)

    def _event(self, event: Event) -> Iterator[bytes]:
        match event:
            case Delta(_, text, logprobs, reasoning):
                self._pieces += 1
                if reasoning:
                    yield from self._write("reasoning", reasoning, ())
                if text or logprobs:
                    yield from self._write("message", text, logprobs)
            case CallDelta():
                self._pieces += 1
                yield from self._write_call(event)
            case Finish(_, reason):
                self._reason = reason
            case Usage():
                if self._kind != "message" and not self._called:
                    yield from self._close(_status(self._reason))
                    yield from self._open("message")
                yield from self._close(_status(self._reason))
                response = self._draft.ended(self._reason, self._output, event)
                yield self._frame(f"response.{response['status']}", response=response)

    def _write(self, kind: str, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[bytes]:
        if kind != self._kind:
            yield from self._open(kind)
        self._text.append(text)
        self._logprobs += logprobs
        if kind == "reasoning":
            yield self._frame("response.reasoning_text.delta", **self._place(), delta=text)
        else:
            shown = self._draft.logprobs(logprobs)
            yield self._frame("response.output_text.delta", **self._place(), delta=text, logprobs=shown)

    def _write_call(self, piece: CallDelta) -> Iterator[bytes]:
        kind = f"call {piece.place}"
        if kind != self._kind:
            yield from self._close("completed")
            self._kind, self._item_id, self._called = kind, new_id("fc"), True
            self._call = ToolCall(piece.id, piece.name)
            item = self._draft.call("in_progress", self._item_id, self._call)
            yield self._frame("response.output_item.added", output_index=len(self._output), item=item)
        self._call.arguments += piece.arguments
        yield self._frame("response.function_call_arguments.delta", **self._place_of_call(), delta=piece.arguments)

    def _open(self, kind: str) -> Iterator[bytes]:
        yield from self._close("completed")
        self._kind, self._item_id = kind, new_id("msg" if kind == "message" else "rs")
        item = self._draft.item(kind, "in_progress", self._item_id, ())
        yield self._frame("response.output_item.added", output_index=len(self._output), item=item)
        yield self._frame("response.content_part.added", **self._place(), part=self._draft.part(kind, ""))

    def _close(self, status: str) -> Iterator[bytes]:
        if not self._kind:
            return
        if self._kind.startswith("call "):
            yield from self._close_call(status)
            return
        text = "".join(self._text)
        part = self._draft.part(self._kind, text, self._logprobs)
        if self._kind == "reasoning":
            yield self._frame("response.reasoning_text.done", **self._place(), text=text)
        else:
            yield self._frame("response.output_text.done", **self._place(), text=text, logprobs=part["logprobs"])
        yield self._frame("response.content_part.done", **self._place(), part=part)
        item = self._draft.item(self._kind, status, self._item_id, [part])
        yield self._frame("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._kind, self._text, self._logprobs = "", [], []

    def _close_call(self, status: str) -> Iterator[bytes]:
        told = {"name": self._call.name, "arguments": self._call.arguments}
        yield self._frame("response.function_call_arguments.done", **self._place_of_call(), **told)
        item = self._draft.call(status, self._item_id, self._call)
        yield self._frame("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._kind = ""

    def _place_of_call(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": len(self._output)}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": len(self._output), "content_index": 0}

    def _frame(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return typed_frame({"type": kind, "sequence_number": self._number, **fields})


def _code_of(error: PagodaError) -> str:
    """The nearest of the codes that OpenAI's clients know."""
    if isinstance(error, Overloaded):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(error, UserError | ContextTooLong) else "server_error"
