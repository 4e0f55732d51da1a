"""Kept answers with their text in one piece say the same as in the pieces that they came in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.types import (
    Call,
    CallDelta,
    Delta,
    Embed,
    Embeddings,
    Event,
    Finish,
    Generation,
    Started,
    TokenLogprob,
    Usage,
)
from pagoda.logic.inference.answer import gather
from pagoda.model.catalog.entry import ReasoningForm
from pagoda.service.cache.entry import Entry, Item
from pagoda.service.cache.policy import joining
from tests.services import fake_model

CHOICES = 3
TOKENS = st.builds(TokenLogprob, token=st.text(max_size=3), logprob=st.floats(-9, 0))
TEXTS = st.builds(Delta, st.integers(0, CHOICES - 1), st.text(max_size=5), st.lists(TOKENS, max_size=2).map(tuple))
THOUGHTS = st.builds(Delta, st.integers(0, CHOICES - 1), st.just(""), reasoning=st.text(min_size=1, max_size=5))
CALLS = st.builds(CallDelta, st.integers(0, CHOICES - 1), st.integers(0, 2), st.text(max_size=5))


def answer(parts: Sequence[Event]) -> Entry:
    finishes = tuple(Finish(index, "stop") for index in range(CHOICES))
    return Entry(1.0, (Started("m", "fake"), *parts, *finishes, Usage(1, len(parts))))


async def told(items: Sequence[Item]) -> AsyncIterator[Event]:
    for item in items:
        assert not isinstance(item, Embeddings)
        yield item


@given(st.lists(st.one_of(TEXTS, THOUGHTS, CALLS), max_size=20))
async def test_the_answer_is_the_same_in_fewer_pieces(parts: list[Event]) -> None:
    entry, request = answer(parts), Generation(model="m", prompt="x", n=CHOICES)
    assert await gather(told(entry.joined), request) == await gather(told(entry.items), request)
    pieces = [item for item in entry.joined if isinstance(item, Delta)]
    assert sum(piece.pieces for piece in pieces) == sum(isinstance(part, Delta) for part in parts)
    neighbours = zip(entry.joined, entry.joined[1:], strict=False)
    assert not any(
        isinstance(one, Delta) and isinstance(other, Delta) and one.index == other.index
        for one, other in neighbours
        if not (getattr(one, "reasoning", "") or getattr(other, "reasoning", ""))
    ), "text that follows text of the same choice was joined to it"


def test_thinking_keeps_its_pieces() -> None:
    thoughts = [Delta(0, "", reasoning=text) for text in ("let ", "me ", "see")]
    entry = answer([*thoughts, Delta(0, "four"), Delta(0, "teen")])
    assert entry.joined[1:5] == (*thoughts, Delta(0, "fourteen", pieces=2))


ASKED = Generation(model="fake-chat", messages=({"role": "user", "content": "x"},))


@pytest.mark.parametrize(
    ("call", "request_", "opened"),
    [
        (Call(), ASKED, False),
        (Call(whole=True), ASKED, True),
        (Call(whole=True), Generation(model="fake-chat", messages=(), continue_final=True), False),
        (Call(whole=True), Embed(model="fake-chat", inputs=("x",)), False),
    ],
)
def test_what_is_streamed_or_may_begin_within_thinking_is_not_joined(
    call: Call, request_: Generation | Embed, opened: bool
) -> None:
    model = fake_model()
    assert joining(model, ASKED, Call(whole=True)) == model.reasoning
    object.__setattr__(model, "reasoning", ReasoningForm(opened=opened))
    assert joining(model, request_, call) is None
