"""Continuing an answer that broke off: what was told, what to ask of another replica, and how both parts make one.

What was told stays told: the other replica continues from what was drawn, which may be more while a stop sequence
may be beginning. Where streams bring each token alone, by the ids of these pieces; else by the text, which a tokenizer
may split otherwise than it was drawn: that changes the count by as much, and sometimes what is likely next. Answers
that are drawn at random are continued by a new draw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pagoda.core.errors import Unavailable
from pagoda.core.types import CallDelta, Delta, Detokenize, Event, Finish, Generation, Started, Tokenize, Usage
from pagoda.model.engines.contract import Engine
from pagoda.model.engines.stop import StopCutter

INTERRUPTED = "stream_interrupted"
"""Code of the error that ends a stream which could not be continued."""
_MOST_PIECES = 1000
_AT_ONCE = 32


@dataclass(slots=True)
class Told:
    """What the client has been told of an answer."""

    request: Generation
    shown: int = 0
    """Characters of the answer's text."""
    spoken: bool = False
    """Whether any of the answer has been told."""
    thought: bool = False
    """Whether thinking was told that the engine kept apart; no engine takes that back."""
    called: bool = False
    """Whether part of a tool call was told; no engine continues one."""
    pieces: list[str] = field(default_factory=list)
    """What the engines drew, piece by piece; a part of it may be held back, since a stop sequence may be beginning."""
    started: bool = False
    held: list[Event] = field(default_factory=list)
    """The end, which is told with its usage, so that an answer that is broken off between them can go on."""

    def draw(self, piece: str) -> None:
        """An engine drew more."""
        self.pieces.append(piece)

    def forget(self) -> None:
        """Nothing was told: what was drawn is drawn again."""
        self.pieces.clear()

    def note(self, event: Delta | CallDelta) -> None:
        """More was told."""
        self.spoken = True
        if isinstance(event, CallDelta):
            self.called = True
            return
        self.shown += len(event.text)
        self.thought = self.thought or bool(event.reasoning)

    def in_order(self, event: Event, pool: str) -> Sequence[Event]:
        """What may be told now that this has come, which is no text: the beginning once, the end with the usage."""
        match event:
            case Started():
                if self.started:
                    return ()
                self.started = True
                return (Started(pool, event.engine, event.warnings, event.cache),)
            case Finish() if self.request.n == 1:
                self.held.append(event)
                return ()
        return (*self.held, event)

    def so_far(self) -> str:
        """All text that was drawn."""
        return "".join(self.pieces)

    def objection(self) -> str:
        """Why this answer cannot be continued elsewhere; empty when it can."""
        if self.request.n > 1:
            return "it has several choices"
        if self.request.output is not None:
            return "its form is constrained from its beginning"
        if self.called:
            return "it is in the middle of a tool call"
        return "the model was thinking" if self.thought else ""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What to ask for the rest of an answer, and how its tokens are counted."""

    request: Generation
    prompt_tokens: int | None
    """Of the undisturbed request; ``None`` where the engine has no tokenizer to tell."""
    told_tokens: int

    @property
    def over(self) -> bool:
        """Whether nothing may follow."""
        return self.request.max_tokens is not None and self.request.max_tokens <= 0


async def continue_from(told: Told, request: Generation, engine: Engine) -> Continuation:
    """Plan the rest of the answer to a request for an engine. Raises ``Unavailable`` where it cannot continue."""
    text = told.so_far()
    if request.messages is not None and not engine.profile.continue_final:
        raise interrupted(f"{engine.model.id} cannot continue a message")
    if engine.profile.token_frames and (drawn := await _drawn(told.pieces, engine)):
        prompt = await _prompt_ids(request, engine)
        left = None if request.max_tokens is None else request.max_tokens - len(drawn)
        by_ids = replace(request, messages=None, prompt=(*prompt, *drawn), continue_final=False, max_tokens=left)
        return Continuation(by_ids, len(prompt), len(drawn))
    following = await _following(request, text, engine)
    prompt_tokens, told_tokens = None, len(told.pieces)
    if engine.profile.tokenize:
        prompt_tokens = await _count(request, engine)
        told_tokens = max(await _count(following, engine) - prompt_tokens, 1)
    if request.max_tokens is not None:
        following = replace(following, max_tokens=request.max_tokens - told_tokens)
    return Continuation(following, prompt_tokens, told_tokens)


async def _drawn(pieces: Sequence[str], engine: Engine) -> tuple[int, ...]:
    """The ids of what was drawn, split as it was drawn: each piece by itself, since a tokenizer given all of them would
    join what the model wrote apart. Empty where they do not make the text again, or are too many to ask for."""
    known: dict[str, tuple[int, ...]] = {}
    distinct = list(dict.fromkeys(pieces))
    if len(distinct) > _MOST_PIECES:
        return ()
    for start in range(0, len(distinct), _AT_ONCE):
        some = distinct[start : start + _AT_ONCE]
        asked = (engine.tokenize(Tokenize(model=engine.model.id, text=piece)) for piece in some)
        known |= {piece: found.ids for piece, found in zip(some, await asyncio.gather(*asked), strict=True)}
    ids = tuple(id for piece in pieces for id in known[piece])
    text = (await engine.detokenize(Detokenize(model=engine.model.id, ids=ids))).text
    return ids if text == "".join(pieces) else ()


async def _following(request: Generation, text: str, engine: Engine) -> Generation:
    if request.messages is not None:
        messages = request.messages
        if request.continue_final:
            last = {**messages[-1], "content": str(messages[-1].get("content") or "") + text}
            return replace(request, messages=(*messages[:-1], last))
        return replace(request, messages=(*messages, {"role": "assistant", "content": text}), continue_final=True)
    if isinstance(request.prompt, str):
        return replace(request, prompt=request.prompt + text)
    if not engine.profile.tokenize:
        raise interrupted(f"{engine.model.id} cannot tokenize what was drawn")
    ids = (await engine.tokenize(Tokenize(model=request.model, text=text))).ids
    return replace(request, prompt=(*(request.prompt or ()), *ids))


async def _count(request: Generation, engine: Engine) -> int:
    return len(await _prompt_ids(request, engine))


async def _prompt_ids(request: Generation, engine: Engine) -> tuple[int, ...]:
    if request.messages is None and not isinstance(request.prompt, str):
        return request.prompt or ()
    text = request.prompt if isinstance(request.prompt, str) else None
    asked = Tokenize(
        model=request.model,
        text=text,
        messages=request.messages,
        continue_final=request.continue_final,
        special=request.messages is None,
    )
    return (await engine.tokenize(asked)).ids


class Stitch:
    """Joins the rest of an answer to what was told: the stop sequence across the seam, and the usage of the whole."""

    def __init__(self, told: Told, plan: Continuation) -> None:
        self._plan = plan
        self._told = told
        self._before = len(told.pieces)
        self._cutter = StopCutter(told.request.stop) if told.request.stop else None
        self.over = False
        drawn = told.so_far()
        sure = len(drawn)
        if self._cutter is not None:
            tail = drawn[-max(map(len, told.request.stop)) :]
            known = self._cutter.feed(Delta(0, tail))
            sure -= len(tail) - (len(known.text) if known is not None else 0)
        self._hidden = max(told.shown - sure, 0)
        self._owed = drawn[told.shown : sure]

    def sew(self, event: Event) -> Iterator[Event]:
        """The events of the whole answer for one of its rest."""
        match event:
            case Started():
                if self._owed:
                    yield Delta(0, self._owed)
            case Delta():
                yield from self._cut(event)
            case Finish():
                if self._cutter is not None and (rest := self._cutter.flush(event.index)) is not None:
                    yield from self._visible(rest)
                yield event
            case Usage():
                yield self.usage(event)

    def usage(self, rest: Usage) -> Usage:
        """The usage of the whole answer, from that of its rest."""
        told, prompt = self._plan.told_tokens, self._plan.prompt_tokens
        prompt = max(rest.prompt_tokens - told, 0) if prompt is None else prompt
        cached = min(rest.cached_tokens, prompt)
        return replace(
            rest, prompt_tokens=prompt, completion_tokens=told + rest.completion_tokens, cached_tokens=cached
        )

    def _cut(self, event: Delta) -> Iterator[Event]:
        if self._cutter is None:
            yield event
            return
        sure = self._cutter.feed(event)
        if sure is not None:
            yield from self._visible(sure)
        if self._cutter.stopped:
            self.over = True
            yield Finish(event.index, "stop", self._cutter.stop)
            drawn = len(self._told.pieces) - self._before
            yield self.usage(Usage((self._plan.prompt_tokens or 0) + self._plan.told_tokens, drawn))

    def _visible(self, event: Delta) -> Iterator[Delta]:
        """Without what was told before the seam."""
        shown = event.text[self._hidden :]
        self._hidden = max(self._hidden - len(event.text), 0)
        if shown or event.logprobs:
            yield replace(event, text=shown)


def interrupted(why: str) -> Unavailable:
    """The error that ends a stream in mid-answer."""
    return Unavailable(
        f"The answer broke off with its engine and could not be continued: {why}; ask again.", code=INTERRUPTED
    )
