"""A prompt with its values as the messages that a model gets. No model is asked and nothing is waited for.

Not here: choosing examples (``choosing``), and what does not fit a model (``fitting``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from pagoda.core.errors import NotFound
from pagoda.core.types import Json, Message
from pagoda.logic.prompts.file import ANSWER, EXAMPLES, QUESTION, SCHEMA
from pagoda.logic.prompts.filling import default_of, fill_in
from pagoda.logic.prompts.prompt import Example, Prompt, PromptVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The messages, and what they were made of."""

    version: PromptVersion
    language: str
    values: Mapping[str, Json]
    examples: tuple[Example, ...]
    messages: tuple[Message, ...]


def language_of(prompt: Prompt, wanted: str | None) -> str:
    """The language to speak: the one that is wanted, else the prompt's first. Raises ``NotFound``."""
    if wanted is None:
        return next(iter(prompt.languages))
    for tag in (wanted, wanted.partition("-")[0]):
        if tag in prompt.languages:
            return tag
    raise NotFound(
        f"{prompt.name} does not speak {wanted[:20]!r}; it has: {', '.join(prompt.languages)}.", param="language"
    )


def examples_for(prompt: Prompt, language: str) -> tuple[Example, ...]:
    """The examples that there are in a language, in the order of the file."""
    few = prompt.techniques.few_shot
    return tuple(each for each in few.examples if each.language in (None, language)) if few is not None else ()


def render(
    version: PromptVersion,
    given: Mapping[str, Json],
    language: str | None = None,
    examples: Sequence[Example] | None = None,
) -> Rendered:
    """The messages of a prompt. ``examples``: those that are shown; ``None`` takes the first ones of the file.

    Raises ``InvalidRequest`` for values that are missing, unknown or wrong, and ``NotFound`` for the language.
    """
    prompt = version.prompt
    spoken = language_of(prompt, language)
    if examples is None:
        few = prompt.techniques.few_shot
        examples = examples_for(prompt, spoken)[: few.count] if few is not None else ()
    values = fill_in(prompt, given, spoken)
    return Rendered(
        version=version,
        language=spoken,
        values=values,
        examples=tuple(examples),
        messages=_messages(prompt, spoken, values, examples),
    )


def example_turns(prompt: Prompt, language: str, example: Example) -> tuple[str, str]:
    """An example as question and answer."""
    variant = prompt.languages[language]
    defaults = {variable.name: default_of(variable, language) for variable in prompt.variables}
    question = variant.example.fill({**defaults, **example.values}, variant.separator)
    answer = example.answer
    if prompt.techniques.chain_of_thought is not None:
        space = " " if variant.mark.isascii() else ""
        answer = "\n".join(part for part in (example.reasoning.strip("\n"), f"{variant.mark}{space}{answer}") if part)
    return question, answer


def _messages(
    prompt: Prompt, language: str, values: Mapping[str, Json], examples: Sequence[Example]
) -> tuple[Message, ...]:
    variant = prompt.languages[language]
    shown = [example_turns(prompt, language, example) for example in examples]
    within = any(EXAMPLES in turn.body.names for turn in variant.turns)
    everything = dict(values)
    if within:
        everything[EXAMPLES] = "\n\n".join(
            variant.layout.fill({QUESTION: asked, ANSWER: told}) for asked, told in shown
        )
    if (structured := prompt.techniques.structured_output) is not None:
        everything[SCHEMA] = orjson.dumps(dict(structured.schema)).decode()
    messages: list[Message] = [
        {"role": turn.role, "content": turn.body.fill(everything, variant.separator)} for turn in variant.turns
    ]
    if shown and not within:
        last = max(index for index, turn in enumerate(variant.turns) if turn.role == "user")
        before = [
            {"role": role, "content": text}
            for asked, told in shown
            for role, text in (("user", asked), ("assistant", told))
        ]
        messages[last:last] = before
    return tuple(messages)
