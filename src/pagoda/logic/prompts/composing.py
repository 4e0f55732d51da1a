"""A prompt made ready for a model: examples chosen, tokens counted, and what does not fit left out by its rule.

The rule: examples go first, the one chosen last before all others; then texts of variables with ``trim`` are cut, in
the order in which the prompt declares them, each to what fits. What does not fit then is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pagoda.core.errors import ContextTooLong
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Generation, Json, OutputFormat, Sampling, Tokenize
from pagoda.logic.prompts.choosing import ExampleChoice
from pagoda.logic.prompts.filling import cut
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.prompts.rendering import Rendered, render

_SURE_BYTES = 1000  # a token has a byte at least, and every model holds more than this many and its template


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A prompt that is used: with which values, in which language, for which model."""

    version: PromptVersion
    values: Mapping[str, Json]
    model: str
    language: str | None = None
    max_tokens: int | None = None
    """Room to leave for the answer, tokens; ``None``: what the prompt's settings say."""

    @property
    def answer_tokens(self) -> int:
        """Room for the answer: one token at least."""
        return self.max_tokens or self.version.prompt.settings.max_tokens or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A prompt ready to be asked."""

    rendered: Rendered
    model: str
    tokens: int | None
    """Of the whole prompt under the model's chat template; ``None``: not counted, since it surely fits."""
    context: int | None
    dropped: int = 0
    """Examples that were left out because they did not fit."""
    trimmed: tuple[str, ...] = ()
    """Variables whose text was cut because it did not fit."""

    def generation(self) -> Generation:
        """The request for one answer, by the prompt's own settings."""
        prompt = self.rendered.version.prompt
        given, structured = prompt.settings, prompt.techniques.structured_output
        output = None
        if structured is not None:
            output = OutputFormat(kind="json_schema", name=structured.name, schema=structured.schema)
        return Generation(
            model=self.model,
            messages=self.rendered.messages,
            sampling=Sampling(temperature=given.temperature, top_p=given.top_p, top_k=given.top_k, seed=given.seed),
            max_tokens=given.max_tokens,
            stop=given.stop,
            output=output,
        )


class Composer:
    """Makes prompts ready, through one door; ``embedding_model`` compares examples with questions."""

    def __init__(self, door: Inference, embedding_model: str) -> None:
        self._door = door
        self._choice = ExampleChoice(door, embedding_model)

    async def compose(self, use: Use, call: Call, *, count: bool = True) -> Composed:
        """The messages for a use. Without ``count``, tokens are counted only where something could be left out.

        Raises ``InvalidRequest`` for values, ``ContextTooLong`` for what does not fit, and what the door raises.
        """
        filled = render(use.version, use.values, use.language, ())
        examples = await self._choice.choose(use.version, filled.values, filled.language, use.model, call)
        rendered = render(use.version, use.values, use.language, examples) if examples else filled
        if not count and _surely_fits(rendered):
            return Composed(rendered=rendered, model=use.model, tokens=None, context=None)
        return await self._fit(use, rendered, call)

    async def _fit(self, use: Use, rendered: Rendered, call: Call) -> Composed:
        tokens, context = await self._count(rendered, use.model, call)
        room = None if context is None else context - use.answer_tokens
        before, trimmed = len(rendered.examples), list[str]()
        # Examples of "fixed" stand in the order of choice; the others with the best one last.
        few = use.version.prompt.techniques.few_shot
        last_is_best = few is not None and few.choose != "fixed"
        while room is not None and tokens > room and rendered.examples:
            fewer = rendered.examples[1:] if last_is_best else rendered.examples[:-1]
            rendered = render(use.version, use.values, use.language, fewer)
            tokens, _ = await self._count(rendered, use.model, call)
        for variable in use.version.prompt.variables:
            if room is None or tokens <= room:
                break
            if variable.trim is None or not rendered.values.get(variable.name):
                continue
            rendered, tokens = await self._trim(use, rendered, (variable.name, variable.trim), room, call)
            trimmed.append(variable.name)
        if room is not None and context is not None and tokens > room:
            raise ContextTooLong(tokens, room)
        return Composed(
            rendered=rendered,
            model=use.model,
            tokens=tokens,
            context=context,
            dropped=before - len(rendered.examples),
            trimmed=tuple(trimmed),
        )

    async def _trim(
        self, use: Use, rendered: Rendered, which: tuple[str, str], room: int, call: Call
    ) -> tuple[Rendered, int]:
        """The prompt with as much of a variable's text as fits, found by halving; with none if nothing fits."""
        name, trim = which
        text = str(rendered.values[name])
        fits, too_long = 0, len(text)
        best = await self._cut_to(use, rendered, (name, cut(text, 0, trim)), call)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            tried = await self._cut_to(use, rendered, (name, cut(text, middle, trim)), call)
            if tried[1] <= room:
                fits, best = middle, tried
            else:
                too_long = middle
        return best

    async def _cut_to(self, use: Use, rendered: Rendered, value: tuple[str, str], call: Call) -> tuple[Rendered, int]:
        changed = replace(use, values={**rendered.values, value[0]: value[1]})
        shorter = render(changed.version, changed.values, rendered.language, rendered.examples)
        return shorter, (await self._count(shorter, use.model, call))[0]

    async def _count(self, rendered: Rendered, model: str, call: Call) -> tuple[int, int | None]:
        counted = await self._door.tokenize(Tokenize(model=model, messages=rendered.messages), call)
        return len(counted.ids), counted.context


def _surely_fits(rendered: Rendered) -> bool:
    """Whether nothing is to be left out: either nothing may, then the engine refuses, or the prompt is very short."""
    prompt = rendered.version.prompt
    if not rendered.examples and not any(variable.trim for variable in prompt.variables):
        return True
    return sum(len(str(message["content"]).encode()) for message in rendered.messages) < _SURE_BYTES
