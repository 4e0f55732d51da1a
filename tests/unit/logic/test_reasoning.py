"""Thinking and answer are told apart, whatever the pieces in which the text comes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pagoda.core.types import Delta, Event, Finish, Generation, Started, TokenLogprob, Usage
from pagoda.logic.inference.reasoning import ReasoningSplitter, inline_reasoning, separate_reasoning
from pagoda.model.catalog.entry import ReasoningForm

TAGS = ReasoningForm()
OPENED = ReasoningForm(opened=True)

# Text around tags, parts of tags and white space: what can go wrong in a splitter is made of these.
snippets = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", "</", "<th", "</thi", "ink>", ">", " ", "\n\n", "a", "answer", "你好", "<b>"]
    ),
    max_size=12,
).map("".join)


def whole(form: ReasoningForm, text: str) -> tuple[str, str]:
    """What a splitter should give, said about the whole text."""
    body = text.lstrip()
    if body.startswith(form.start):
        body = body[len(form.start) :]
    elif not form.opened:
        return "", text
    reasoning, _, answer = body.partition(form.end)
    return reasoning.strip(), answer.lstrip()


def in_pieces(form: ReasoningForm, pieces: Sequence[str]) -> tuple[str, str]:
    splitter = ReasoningSplitter(form, opened=form.opened)
    given_out = [splitter.feed(piece) for piece in pieces] + [splitter.flush()]
    return "".join(reasoning for reasoning, _ in given_out), "".join(answer for _, answer in given_out)


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


@given(snippets, st.lists(st.integers(0, 100), max_size=8), st.booleans())
@example("<think>a b</think> c", list(range(20)), False)
@example(" \n", [1], False)
@example("<thin", [2], True)
def test_any_chunking_gives_the_same_and_nothing_is_lost(text: str, places: list[int], opened: bool) -> None:
    form = OPENED if opened else TAGS
    assert in_pieces(form, cut(text, places)) == whole(form, text)


def test_an_answer_about_tags_is_left_alone() -> None:
    assert in_pieces(TAGS, ["The tag ", "<think>", " begins it."]) == ("", "The tag <think> begins it.")


async def events_of(*events: Event) -> AsyncIterator[Event]:
    for event in events:
        yield event


async def separated(request: Generation, form: ReasoningForm, *events: Event) -> list[Event]:
    return [event async for event in separate_reasoning(events_of(*events), request, form)]


def deltas(*texts: str, index: int = 0) -> list[Delta]:
    return [Delta(index, text, (TokenLogprob(text, -1.0),)) for text in texts]


def chat(**fields: Any) -> Generation:
    return Generation(model="m", messages=({"role": "user", "content": "hi"},), top_logprobs=0, **fields)


START, END = Started("m", "fake"), Usage(5, 9)


async def test_log_probabilities_stay_with_the_answer() -> None:
    told = deltas("<think>", "so", "</think>", "\n\n", "yes", "!")
    shown = await separated(chat(), TAGS, START, *told, Finish(0, "stop"), END)
    texts = [event for event in shown if isinstance(event, Delta)]
    assert "".join(event.reasoning for event in texts) == "so"
    assert "".join(event.text for event in texts) == "yes!"
    assert [token.token for event in texts for token in event.logprobs] == ["yes", "!"]
    assert shown[-1] == Usage(5, 9, 0, 4)


async def test_a_held_beginning_keeps_its_log_probabilities() -> None:
    shown = await separated(chat(), TAGS, START, *deltas("<", "b>"), Finish(0, "stop"), END)
    texts = [event for event in shown if isinstance(event, Delta)]
    assert "".join(event.text for event in texts) == "<b>"
    assert [token.token for event in texts for token in event.logprobs] == ["<", "b>"]
    ended = await separated(chat(), TAGS, START, *deltas("<th"), Finish(0, "stop"), END)
    assert [event for event in ended if isinstance(event, Delta)] == deltas("<th")
    assert ended[-1] == END


async def test_choices_think_apart_and_hidden_thinking_is_counted() -> None:
    told = [*deltas("<think>", index=1), *deltas("plain", index=0), *deltas("deep", "</think>", "ok", index=1)]
    shown = await separated(
        chat(n=2, reasoning="hidden"), TAGS, START, *told, Finish(0, "stop"), Finish(1, "stop"), END
    )
    texts = [event for event in shown if isinstance(event, Delta)]
    assert [(event.index, event.text) for event in texts] == [(0, "plain"), (1, "ok")]
    assert not any(event.reasoning for event in texts)
    assert shown[-1] == Usage(5, 9, 0, 3)


async def test_what_the_engine_told_apart_is_taken_as_it_comes() -> None:
    told = (Delta(0, "", (), "deep"), Delta(0, "yes"))
    assert await separated(chat(), OPENED, START, *told, Finish(0, "stop"), END) == [
        START,
        *told,
        Finish(0, "stop"),
        Usage(5, 9, 0, 1),
    ]
    request = chat(reasoning="inline")
    inline = [event async for event in inline_reasoning(events_of(START, *told, END), request, TAGS)]
    text = "".join(event.text for event in inline if isinstance(event, Delta))
    assert text == "<think>\ndeep\n</think>\n\nyes"


async def test_a_continued_message_may_stop_in_the_middle_of_a_thought() -> None:
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "<think>I wonder"})
    request = Generation(model="m", messages=messages, continue_final=True)
    shown = await separated(request, TAGS, START, Delta(0, " if</think>yes"), Finish(0, "stop"), END)
    assert [(event.reasoning, event.text) for event in shown if isinstance(event, Delta)] == [("if", "yes")]
