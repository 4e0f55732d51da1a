"""``PromptOptimizer``: prompts compared from Python, by the trials, scorers and statistics of the command line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import yaml

from pagoda.application.client import home_door
from pagoda.application.comparing import Desk, compare, report_of
from pagoda.application.prompting import open_prompts
from pagoda.core.configuration import load_settings
from pagoda.core.errors import Conflict, InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Json
from pagoda.logic.evaluation.dataset import Source, read_cases
from pagoda.logic.evaluation.naming import Means, scorer_from
from pagoda.logic.evaluation.report import Report
from pagoda.logic.evaluation.score import Case, Scorer
from pagoda.logic.evaluation.trials import Trials, Variant
from pagoda.logic.prompts.asking import PromptAnswer, ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.prompts.template import compile_template

OpenDoor: TypeAlias = Callable[[], AbstractAsyncContextManager[Inference]]
Cases: TypeAlias = "Source | Iterable[Mapping[str, Json]]"
"""A file, or rows; what is expected stands in the column ``expected`` of a row."""


class PromptOptimizer:
    """Variants of a prompt: added, asked for one input, and evaluated on many.

    Settings come from ``pagoda.toml`` and the environment, as for every command; ``model`` and ``language`` hold for
    all variants. The methods with an ``a`` before their name are for programs with an event loop.
    """

    def __init__(
        self, *, model: str | None = None, language: str | None = None, open_door: OpenDoor | None = None
    ) -> None:
        self._settings = load_settings({}, os.environ, Path.cwd())
        self._open_door: OpenDoor = open_door or (lambda: home_door(self._settings, os.environ))
        self._model = model
        self._language = language
        self._variants: dict[str, PromptVersion] = {}

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of all variants, in the order in which they were added."""
        return tuple(self._variants)

    def add(self, prompt: str | Path | PromptVersion, name: str | None = None) -> PromptOptimizer:
        """Add a variant: a file, YAML, a kept prompt (``summary@3``), or a template such as ``"Sum up: {{text}}"``.

        Raises ``Conflict`` for a name that is taken.
        """
        version = self._read(prompt, name)
        called = name or version.prompt.name
        if called in self._variants:
            raise Conflict(f"There is a variant {called!r} already; give this one another name.", param="name")
        self._variants[called] = version
        return self

    def generate(self, values: Mapping[str, Json]) -> dict[str, PromptAnswer]:
        """What every variant answers to one input, by name."""
        return asyncio.run(self.agenerate(values))

    def evaluate(
        self,
        cases: Cases,
        scorers: Sequence[str | Scorer] = ("exact",),
        *,
        repeats: int = 1,
        folder: Path | None = None,
    ) -> Report:
        """Every variant on every case, scored and compared; the first scorer decides.

        In ``folder`` answers are kept as they come: the same call goes on there after it was stopped.
        """
        return asyncio.run(self.aevaluate(cases, scorers, repeats=repeats, folder=folder))

    async def agenerate(self, values: Mapping[str, Json]) -> dict[str, PromptAnswer]:
        """``generate`` for programs with an event loop."""
        self._check()
        async with self._open_door() as door:
            composer = Composer(door, self._settings.defaults.embedding)

            async def one(version: PromptVersion) -> PromptAnswer:
                use = Use(version=version, values=values, model=self._model_of(version), language=self._language)
                return await ask(await composer.compose(use, Call(), count=False), door, Call())

            answers = await asyncio.gather(*(one(version) for version in self._variants.values()))
        return dict(zip(self._variants, answers, strict=True))

    async def aevaluate(
        self,
        cases: Cases,
        scorers: Sequence[str | Scorer] = ("exact",),
        *,
        repeats: int = 1,
        folder: Path | None = None,
    ) -> Report:
        """``evaluate`` for programs with an event loop."""
        self._check()
        rows = await asyncio.to_thread(read_cases, cases) if isinstance(cases, Source) else _cases(cases)
        variants = [
            Variant(name=name, version=version, model=self._model_of(version), language=self._language)
            for name, version in self._variants.items()
        ]
        with TemporaryDirectory(prefix="pagoda-") as temporary:
            place = Path(temporary) if folder is None else folder
            await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
            trials = Trials(variants, rows, repeats, place)
            async with self._open_door() as door:
                used = [self._scorer(each, door) for each in scorers]
                await compare(trials, used, Desk(door, self._settings), _quiet)
            return report_of(trials, [each.name for each in used], self._settings)

    def _read(self, prompt: str | Path | PromptVersion, name: str | None) -> PromptVersion:
        if isinstance(prompt, PromptVersion):
            return prompt
        if isinstance(prompt, str) and "\n" in prompt and prompt.lstrip().startswith(("name:", "#", "---")):
            return read_prompt(prompt)
        if isinstance(prompt, str) and ("{{" in prompt or "\n" in prompt):
            return from_template(name or f"variant-{len(self._variants) + 1}", prompt)

        async def find() -> PromptVersion:
            async with open_prompts(self._settings) as room:
                return await room.find(str(prompt), "local")

        with ThreadPoolExecutor(1) as thread:  # there may be an event loop in this one
            return thread.submit(asyncio.run, find()).result()

    def _model_of(self, version: PromptVersion) -> str:
        return self._model or version.prompt.settings.model or self._settings.defaults.chat

    def _scorer(self, given: str | Scorer, door: Inference) -> Scorer:
        if not isinstance(given, str):
            return given
        defaults = self._settings.defaults
        means = Means(
            door=door,
            call=Call(purpose="evaluation"),
            judge_model=defaults.chat,
            embedding_model=defaults.embedding,
            language=self._language or "en",
        )
        return scorer_from(given, means)

    def _check(self) -> None:
        if not self._variants:
            raise InvalidRequest("There is no variant yet; add one with add(...).")


def from_template(name: str, template: str) -> PromptVersion:
    """A prompt of one message, whose variables are the names in it, each a string."""
    variables = {each: {"required": True} for each in sorted(compile_template(template).names)}
    messages = [{"user": template}]
    data = {"name": name, "variables": variables, "languages": {"en": {"messages": messages}}}
    return replace(read_prompt(yaml.safe_dump(data, allow_unicode=True), name), tenant="")


def _cases(rows: Iterable[Mapping[str, Json]]) -> list[Case]:
    cases = []
    for number, row in enumerate(rows, 1):
        expected = row.get("expected")
        values = {name: value for name, value in row.items() if name != "expected"}
        cases.append(Case(id=str(number), values=values, expected=None if expected is None else str(expected)))
    if not cases:
        raise InvalidRequest("There are no cases.")
    return cases


def _quiet(stage: str, done: int, total: int) -> None:
    del stage, done, total
