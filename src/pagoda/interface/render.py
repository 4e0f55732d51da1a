"""Answers and events in OpenAI's forms."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from pagoda.core.types import (
    CacheUse,
    CallDelta,
    Delta,
    Event,
    Finish,
    FinishReason,
    OutputFormat,
    Reasoning,
    Sampling,
    Started,
    TokenLogprob,
    Usage,
)
from pagoda.interface.schemas.shared import SamplingFields
from pagoda.interface.sse import DONE, frame
from pagoda.logic.inference.answer import Answer, Choice
from pagoda.service.note import answer_id


def sampling_of(body: SamplingFields) -> Sampling:
    """How tokens are drawn."""
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        seed=body.seed,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias={int(token): bias for token, bias in body.logit_bias.items()} if body.logit_bias else None,
    )


def stops_of(body: SamplingFields) -> tuple[str, ...]:
    """Stop sequences as a tuple."""
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def output_of(body: SamplingFields) -> OutputFormat | None:
    """The demanded form, if any."""
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.json_schema is None or wanted.type == "json_object":
        return OutputFormat(kind="json_object")
    return OutputFormat(kind="json_schema", name=wanted.json_schema.name, schema=wanted.json_schema.schema_)


def cache_use(first: Event | None) -> CacheUse:
    """What the cache did for an answer, by its first event."""
    return first.cache if isinstance(first, Started) else "bypass"


def joint_cache_use(uses: Sequence[CacheUse]) -> CacheUse:
    """What the cache did for several answers together: ``hit`` only when no engine computed any of them."""
    if "miss" in uses:
        return "miss"
    return "bypass" if "bypass" in uses else "hit"


def reasoning_of(*, include: bool, form: str | None = None) -> Reasoning:
    """Where the model's thinking goes."""
    if form == "none":
        return "inline"
    return "separate" if include else "hidden"


def usage_json(usage: Usage) -> dict[str, Any]:
    """Token usage."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    } | ({"completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens}} if usage.reasoning_tokens else {})


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities in chat form."""
    return {
        "content": [_logprob(token) | {"top_logprobs": [_logprob(rival) for rival in token.top]} for token in tokens]
    }


def _stop_reason(stop: str | None) -> dict[str, str]:
    """Which stop sequence was met, under vLLM's name for it."""
    return {} if stop is None else {"stop_reason": stop}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": token.bytes}


def completion_logprobs(tokens: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """Log-probabilities in the older, parallel form; offsets count characters from the answer's beginning."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{rival.token: rival.logprob for rival in token.top} for token in tokens],
        "text_offset": offsets,
    }


def chat_json(answer: Answer, *, logprobs: bool, older_calls: bool = False) -> dict[str, Any]:
    """A whole chat answer; tool calls in their older form if that is wanted."""
    choices = [
        {
            "index": index,
            "message": _message_json(choice, older_calls),
            "logprobs": chat_logprobs(choice.logprobs) if logprobs else None,
            "finish_reason": _finish_word(choice.finish, older_calls),
            **_stop_reason(choice.stop),
        }
        for index, choice in enumerate(answer.choices)
    ]
    return _whole("chat.completion", "chatcmpl", answer, choices, answer.usage)


def _message_json(choice: Choice, older_calls: bool) -> dict[str, Any]:
    calls = [call.message() for call in choice.calls]
    message: dict[str, Any] = {"role": "assistant", "content": choice.text or (None if calls else ""), "refusal": None}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if calls:
        message |= {"function_call": calls[0]["function"]} if older_calls else {"tool_calls": calls}
    return message


def _finish_word(reason: FinishReason, older_calls: bool) -> str:
    return "function_call" if older_calls and reason == "tool_calls" else reason


def completion_json(answers: Sequence[Answer], *, logprobs: bool) -> dict[str, Any]:
    """Whole completions of one or several prompts."""
    choices = [
        {
            "index": index,
            "text": choice.text,
            "logprobs": completion_logprobs(choice.logprobs) if logprobs else None,
            "finish_reason": choice.finish,
            **_stop_reason(choice.stop),
        }
        for index, choice in enumerate(choice for answer in answers for choice in answer.choices)
    ]
    usage = Usage(
        sum(answer.usage.prompt_tokens for answer in answers),
        sum(answer.usage.completion_tokens for answer in answers),
        sum(answer.usage.cached_tokens for answer in answers),
    )
    return _whole("text_completion", "cmpl", answers[0], choices, usage)


def _whole(kind: str, prefix: str, answer: Answer, choices: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
    body = {
        "id": answer_id(prefix),
        "object": kind,
        "created": int(time.time()),
        "model": answer.model,
        "system_fingerprint": answer.engine,
        "choices": choices,
        "usage": usage_json(usage),
    }
    return body | ({"warnings": answer.warnings} if answer.warnings else {})


class ChunkWriter:
    """Turns events into the frames of a streamed answer; one a response, since all frames share an id."""

    def __init__(self, *, chat: bool, logprobs: bool, include_usage: bool, older_calls: bool = False) -> None:
        self._chat = chat
        self._older_calls = older_calls
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._offsets: dict[int, int] = {}
        self._head = {
            "id": answer_id("chatcmpl" if chat else "cmpl"),
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
        }

    async def frames(self, events: AsyncIterator[Event], first: Event | None, choices: int) -> AsyncIterator[bytes]:
        """All frames of an answer whose first event was taken already (so that its failure has an HTTP status)."""
        async with aclosing(events) as rest:  # type: ignore[type-var]
            if isinstance(first, Started):
                for block in self.opening(first, choices):
                    yield block
            async for event in rest:
                if (written := self.event(event)) is not None:
                    yield written
        yield DONE

    def opening(self, started: Started, choices: int) -> Iterable[bytes]:
        """The first frames: what answers, each choice's role, and warnings."""
        self._head |= {"model": started.model, "system_fingerprint": started.engine}
        if self._chat:
            for index in range(choices):
                delta = {"role": "assistant", "content": ""}
                extra = {"warnings": started.warnings} if started.warnings and index == 0 else {}
                yield self._frame([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}], **extra)
        elif started.warnings:
            yield self._frame([], warnings=started.warnings)

    def event(self, event: Event, shift: int = 0) -> bytes | None:
        """The frame of an event, if it makes one; ``shift`` is added to the index of its choice."""
        match event:
            case Delta(index, text, logprobs, reasoning):
                return self._frame([self._delta(index + shift, text, logprobs, reasoning)])
            case CallDelta(index):
                shown = {"index": index + shift, "delta": self._call(event), "logprobs": None, "finish_reason": None}
                return self._frame([shown])
            case Finish(index, reason, stop):
                body: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
                word = _finish_word(reason, self._older_calls)
                body |= {"logprobs": None, "finish_reason": word, **_stop_reason(stop)}
                return self._frame([{"index": index + shift, **body}])
            case Usage() if self._include_usage:
                return self._frame([], usage=usage_json(event))
        return None

    def _call(self, piece: CallDelta) -> dict[str, Any]:
        """A piece of a tool call."""
        function = ({"name": piece.name} if piece.name else {}) | {"arguments": piece.arguments}
        if self._older_calls:
            return {"function_call": function}
        head = {"id": piece.id, "type": "function"} if piece.id else {}
        return {"tool_calls": [{"index": piece.place, **head, "function": function}]}

    def text(self, index: int, text: str) -> bytes:
        """A frame of text that no event brought (an echoed prompt)."""
        return self._frame([self._delta(index, text, (), "")])

    def _delta(self, index: int, text: str, logprobs: tuple[TokenLogprob, ...], reasoning: str) -> dict[str, Any]:
        if self._chat:
            delta: dict[str, Any] = {"content": text} if text or not reasoning else {}
            if reasoning:
                delta["reasoning_content"] = reasoning
            shown = chat_logprobs(logprobs) if self._logprobs else None
            return {"index": index, "delta": delta, "logprobs": shown, "finish_reason": None}
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + len(text)
        shown = completion_logprobs(logprobs, offset) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": shown, "finish_reason": None}

    def _frame(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        if self._include_usage and "usage" not in extra:
            extra["usage"] = None
        return frame({**self._head, "choices": choices, **extra})
