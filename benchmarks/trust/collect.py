"""What the models say about each item, asked once and kept: token log-probabilities, samples, the model's own answers.

A line of JSON an item; a run that broke off goes on where it was. The sets are asked in turns, so that whatever there
is holds some of each.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.trust.sets import SETS, Item, items
from pagoda.application.client import home_door
from pagoda.core.configuration import load_settings
from pagoda.core.ports import Inference
from pagoda.core.types import Call, TokenLogprob
from pagoda.logic.inference.answer import collect
from pagoda.logic.prompts.composing import Composed
from pagoda.logic.prompts.rendering import render
from pagoda.logic.trust.evidence import excerpt
from pagoda.logic.trust.likelihood import MOST_SOURCE_CHARACTERS, score_tokens
from pagoda.logic.trust.prompts import trust_prompt
from pagoda.logic.trust.sampling import draw
from pagoda.logic.trust.subject import Source, Subject

AT_ONCE = 4
ROUND = {"qa": 4, "pairs": 4, "own": 10, "general": 10}
"""Items of each set in a turn: the last two have no signal that comes without a model."""
CALL = Call(purpose="evaluation", priority=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was said about an item."""

    key: str
    answer: str
    tokens: list[tuple[str, float]]
    samples: list[str]

    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """As the product takes them."""
        return tuple(TokenLogprob(token, value) for token, value in self.tokens)


def subject_of(item: Item, answer: str, model: str) -> Subject:
    """The item as the product sees it."""
    sources = (Source(name=item.id, text=item.context),) if item.context else ()
    return Subject(question=item.question, answer=answer, sources=sources, model=model)


def read(path: Path) -> dict[str, Heard]:
    """What was kept, by the items' keys."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {row["key"]: Heard(**row) for row in rows}


def turns(most: int) -> Iterator[Item]:
    """Items of all sets in turns, ``most`` of each."""
    lists = {name: items(name)[:most] for name in SETS}
    for turn in range(most):
        for name in SETS:
            yield from lists[name][turn * ROUND[name] : (turn + 1) * ROUND[name]]


async def gather(path: Path, most: int) -> None:
    """Ask about all items that nothing is known of."""
    settings = load_settings({}, os.environ, Path("/"))
    heard, gate, drawn = read(path), asyncio.Semaphore(AT_ONCE), dict[str, asyncio.Task[tuple[str, ...]]]()
    async with home_door(settings, os.environ) as door:

        async def ask(item: Item) -> None:
            async with gate:
                said = await hear(item, door, settings.defaults.chat, drawn)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(said, ensure_ascii=False) + "\n")

        waiting = [item for item in turns(most) if item.key not in heard]
        for number, done in enumerate(asyncio.as_completed([asyncio.create_task(ask(item)) for item in waiting]), 1):
            await done
            if number % 20 == 0:
                print(f"{number} of {len(waiting)}", file=sys.stderr, flush=True)


async def hear(
    item: Item, door: Inference, model: str, drawn: dict[str, asyncio.Task[tuple[str, ...]]]
) -> dict[str, Any]:
    """All that is kept of an item; the members of a pair share their samples."""
    answer = item.answer or await own_answer(item, door, model)
    subject = subject_of(item, answer, model)
    tokens = await score_tokens(subject, door, CALL)
    which = f"{item.set}/{item.id}"
    if which not in drawn:
        drawn[which] = asyncio.create_task(draw(subject, door, CALL))
    return {
        "key": item.key,
        "answer": answer,
        "tokens": [(token.token, round(token.logprob, 4)) for token in tokens],
        "samples": list(await drawn[which]),
    }


async def own_answer(item: Item, door: Inference, model: str) -> str:
    """What the default model says, greedily."""
    subject = subject_of(item, "", model)
    values = {
        "question": item.question,
        "sources": excerpt(subject.sources, item.question, MOST_SOURCE_CHARACTERS["en"]),
    }
    rendered = render(trust_prompt("sample"), values, "en")
    request = Composed(rendered=rendered, model=model, tokens=None, context=None).generation()
    request = replace(request, sampling=replace(request.sampling, temperature=0.0))
    return (await collect(door, request, CALL)).text.strip()
