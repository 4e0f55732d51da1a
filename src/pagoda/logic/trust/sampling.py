"""The same question asked again: answers drawn at random, to be compared with the one that was given."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.inference.answer import collect
from pagoda.logic.prompts.composing import Composed
from pagoda.logic.prompts.rendering import render
from pagoda.logic.trust.evidence import excerpt
from pagoda.logic.trust.likelihood import MOST_SOURCE_CHARACTERS
from pagoda.logic.trust.prompts import trust_prompt
from pagoda.logic.trust.subject import Subject

SAMPLES = 4


async def draw(subject: Subject, door: Inference, call: Call, *, seed: int = 1) -> tuple[str, ...]:
    """``SAMPLES`` short answers of the subject's model to its question, with its sources at hand.

    Raises what the door raises.
    """
    values = {"question": subject.question}
    most = MOST_SOURCE_CHARACTERS[subject.language]
    if shown := await asyncio.to_thread(excerpt, subject.sources, subject.question, most):
        values["sources"] = shown
    rendered = render(trust_prompt("sample"), values, subject.language)
    request = Composed(rendered=rendered, model=subject.model, tokens=None, context=None).generation()
    request = replace(request, n=SAMPLES, sampling=replace(request.sampling, seed=seed))
    given = await collect(door, request, replace(call, purpose="judge", parent=call.request_id))
    return tuple(choice.text.strip() for choice in given.choices)
