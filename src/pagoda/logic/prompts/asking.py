"""Asking a model with a prompt: one answer, or several and a vote, and the answer found in what was written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Usage
from pagoda.logic.inference.answer import collect
from pagoda.logic.prompts.answers import Vote, find_answer, vote
from pagoda.logic.prompts.composing import Composed


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptAnswer:
    """What a prompt gave."""

    text: str
    """What the model wrote; of several samples, the first one that gave the answer."""
    answer: str | None
    """Found in the text as the prompt says; ``None``: there was none."""
    texts: tuple[str, ...]
    vote: Vote | None
    """Where several samples were drawn."""
    model: str
    usage: Usage
    finish: str


async def ask(composed: Composed, door: Inference, call: Call) -> PromptAnswer:
    """Ask once, or as often as the prompt's self-consistency says, in one request. Raises what the door raises."""
    rendered, request = composed.rendered, composed.generation()
    prompt = rendered.version.prompt
    call = replace(call, prompt=rendered.version.reference)
    if (several := prompt.techniques.self_consistency) is not None:
        sampling = replace(request.sampling, temperature=several.temperature)
        request = replace(request, n=several.samples, sampling=sampling)
    given = await collect(door, request, call)
    texts = tuple(choice.text for choice in given.choices)
    answers = [find_answer(prompt.answer, text, rendered.language, rendered.values) for text in texts]
    counted = vote(answers) if several is not None else None
    chosen = answers[0] if counted is None else counted.answer
    shown = answers.index(chosen)
    return PromptAnswer(
        text=texts[shown],
        answer=chosen,
        texts=texts,
        vote=counted,
        model=given.model,
        usage=given.usage,
        finish=given.choices[shown].finish,
    )
