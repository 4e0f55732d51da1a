"""Telling a model's thinking from its answer in a stream of text, whatever the engine did about it.

A model that thinks writes ``<think>...</think>`` before its answer (its entry may name other tags). Only a block at the
very beginning counts: an answer about such tags is left alone. White space around the tags belongs to neither side.
Reasoning that the engine tells apart itself (``Delta.reasoning``) is taken as it comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Literal

from pagoda.core.types import Delta, Event, Finish, Generation, TokenLogprob, Usage
from pagoda.model.catalog.entry import ReasoningForm


class ReasoningSplitter:
    """Splits the text of one choice, in pieces of any size; what they give joins to what the whole text would give."""

    def __init__(self, form: ReasoningForm, *, opened: bool = False) -> None:
        self._form = form
        self._opened = opened
        self._held = ""
        self._place: Literal["opening", "thinking", "closing", "answering"] = "opening"
        self._said = False
        self.thought = False
        """Whether there was a block of thinking."""

    @property
    def answering(self) -> bool:
        """Whether all that comes from now on is the answer, unchanged."""
        return self._place == "answering"

    def feed(self, text: str) -> tuple[str, str]:
        """The reasoning and the answer that have become certain."""
        self._held += text
        reasoning = ""
        if self._place == "opening":
            self._open()
        if self._place == "thinking":
            reasoning = self._think()
        if self._place == "closing":
            self._held = self._held.lstrip()
            if self._held:
                self._place = "answering"
        if self._place != "answering":
            return reasoning, ""
        answer, self._held = self._held, ""
        return reasoning, answer

    def flush(self) -> tuple[str, str]:
        """What was held back, once the text has ended."""
        held, self._held = self._held, ""
        if self._place == "thinking" or (self._place == "opening" and self._opened):
            return (held if self._said else held.lstrip()).rstrip(), ""
        return "", held

    def _open(self) -> None:
        """Decide with what the text begins, as soon as it is certain."""
        text = self._held.lstrip()
        tag = self._form.start
        if text.startswith(tag):
            text = text[len(tag) :]
        elif tag.startswith(text):
            return
        elif not self._opened:
            self._place = "answering"
            return
        self._place, self._held, self.thought = "thinking", text, True

    def _think(self) -> str:
        """All up to the end tag, or up to what may be its beginning or the space before it."""
        if not self._said:
            self._held = self._held.lstrip()
        at = self._held.find(self._form.end)
        if at >= 0:
            told, rest = self._held[:at].rstrip(), self._held[at + len(self._form.end) :]
            self._place = "closing"
        else:
            told = self._held[: len(self._held) - _doubtful(self._form.end, self._held)].rstrip()
            rest = self._held[len(told) :]
        self._held, self._said = rest, self._said or bool(told)
        return told


def _doubtful(tag: str, text: str) -> int:
    """Length of the longest end of the text with which the tag may begin."""
    return next((length for length in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:length])), 0)


class _Choice:
    """One choice on its way: its splitter, and the tokens whose text is not yet known to be answer."""

    def __init__(self, form: ReasoningForm, opened: bool) -> None:
        self.splitter = ReasoningSplitter(form, opened=opened)
        self.pieces = 0
        self._form = form
        self._fed = 0
        self._tokens: list[tuple[int, TokenLogprob]] = []

    def take(self, delta: Delta) -> Delta:
        """The delta as it shall be shown; log-probabilities are kept for the answer alone."""
        if delta.reasoning and not self.splitter.thought:  # the engine tells them apart: no tag is to be expected
            self.splitter = ReasoningSplitter(self._form)
        self.pieces += 1
        place = self._fed
        for token in delta.logprobs:
            self._tokens.append((place, token))
            place += len(token.token)
        self._fed += len(delta.text)
        reasoning, answer = self.splitter.feed(delta.text)
        if not self.splitter.answering:
            return replace(delta, text="", logprobs=(), reasoning=delta.reasoning + reasoning)
        if answer == delta.text and not reasoning and len(self._tokens) == len(delta.logprobs):
            return delta  # as most answers begin
        start = self._fed - len(answer)
        tokens = tuple(token for at, token in self._tokens if at >= start)
        return replace(delta, text=answer, logprobs=tokens, reasoning=delta.reasoning + reasoning)

    def end(self, index: int) -> Delta:
        """What was held back."""
        reasoning, answer = self.splitter.flush()
        return Delta(index, answer, tuple(token for _, token in self._tokens) if answer else (), reasoning)


async def separate_reasoning(
    events: AsyncIterator[Event], request: Generation, form: ReasoningForm
) -> AsyncIterator[Event]:
    """The events of a chat answer with reasoning as a field of its own, or without it."""
    opened, hidden = form.opened, request.reasoning == "hidden"
    if request.continue_final and request.messages:  # what is continued may stop in the middle of a thought
        begun = str(request.messages[-1].get("content", ""))
        opened = begun.rfind(form.start) > begun.rfind(form.end)
    choices = [_Choice(form, opened) for _ in range(request.n)]
    spent = 0
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            match event:
                case Delta(index, reasoning=given):
                    choice = choices[index]
                    spent += bool(given)
                    shown = event if choice.splitter.answering else choice.take(event)
                    if hidden and shown.reasoning:
                        shown = replace(shown, reasoning="")
                    if shown.text or shown.reasoning or shown.logprobs:
                        yield shown
                    if choice.splitter.answering and choice.pieces:
                        spent += choice.pieces - 1 if choice.splitter.thought else 0
                        choice.pieces = 0
                case Finish(index):
                    choice = choices[index]
                    spent += choice.pieces if choice.splitter.thought else 0
                    if not choice.splitter.answering:
                        rest = choice.end(index)
                        if rest.text or (rest.reasoning and not hidden):
                            yield rest
                    yield event
                case Usage(completion_tokens=most) if spent:
                    yield replace(event, reasoning_tokens=min(spent, most))
                case _:
                    yield event


async def inline_reasoning(
    events: AsyncIterator[Event], request: Generation, form: ReasoningForm
) -> AsyncIterator[Event]:
    """The events of a chat answer with the text as the model wrote it, also where the engine took its tags away."""
    thinking = [False] * request.n
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            if isinstance(event, Delta) and (event.reasoning or thinking[event.index]):
                text = (
                    event.reasoning
                    if thinking[event.index] or not event.reasoning
                    else f"{form.start}\n{event.reasoning}"
                )
                if event.text:
                    text += f"\n{form.end}\n\n{event.text}"
                thinking[event.index] = not event.text
                yield replace(event, text=text, reasoning="")
            else:
                yield event
