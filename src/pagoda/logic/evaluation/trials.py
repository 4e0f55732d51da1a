"""Trials: each variant of a prompt, on each model, asked each case, several times; what came of it, and its scores.

A trial is a line of a batch: it is asked through the batches' own work, several at once, and its answer is appended to
a file that says what is done. Whatever is killed, no answer that was written is paid for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from pagoda.core.errors import PagodaError
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Json
from pagoda.logic.batches.answers import AnswerFiles
from pagoda.logic.batches.lines import Line
from pagoda.logic.batches.work import Pace, Work
from pagoda.logic.evaluation.score import Case, Output, Scorer, judged
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.prompts.filling import value_from
from pagoda.logic.prompts.prompt import PromptVersion, Variable

_ENDPOINT = "comparison"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A prompt in a comparison, under a name of its own; with a model where several are compared."""

    name: str
    version: PromptVersion
    model: str
    language: str | None = None
    values: Mapping[str, Json] | None = None
    """Variables that are the same for every case."""

    def used(self, case: Case) -> Use:
        """The prompt with the case's values: those columns that are variables of it."""
        known = {variable.name: variable for variable in self.version.prompt.variables}
        row = {name: _typed(known[name], value) for name, value in case.values.items() if name in known}
        return Use(version=self.version, values=row | dict(self.values or {}), model=self.model, language=self.language)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One question that is asked."""

    variant: int
    """Its place among the variants."""
    case: int
    repeat: int

    @property
    def id(self) -> str:
        """Unique within a comparison."""
        return f"{self.variant}-{self.case}-{self.repeat}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of a trial."""

    trial: Trial
    text: str
    answer: str | None
    question: str
    seconds: float
    """From asking to the whole answer, waiting in line included."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    error: str | None = None
    """Why there is no answer."""


class Trials:
    """The trials of one comparison, and the folder where what came of them is kept."""

    def __init__(self, variants: Sequence[Variant], cases: Sequence[Case], repeats: int, folder: Path) -> None:
        self.variants = tuple(variants)
        self.cases = tuple(cases)
        self.repeats = repeats
        self._answers = (folder / "answers.jsonl", folder / "errors.jsonl")
        self._scores = (folder / "scores.jsonl", folder / "score-errors.jsonl")

    def __iter__(self) -> Iterator[Trial]:
        """Case by case over all variants, so that a comparison that is stopped early has seen pairs."""
        for repeat in range(self.repeats):
            for case in range(len(self.cases)):
                for variant in range(len(self.variants)):
                    yield Trial(variant=variant, case=case, repeat=repeat)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.variants) * len(self.cases) * self.repeats

    async def ask_all(self, door: Inference, composer: Composer, pace: Pace, call: Call, tick: Tick) -> None:
        """Ask what was not asked yet; the cache is passed by, since repeats must be computed to mean anything."""
        call = replace(call, cache="bypass")
        trials = {trial.id: trial for trial in self}

        async def put(line: Line, given: Call) -> Mapping[str, Any]:
            trial = trials[line.custom_id]
            use = self.variants[trial.variant].used(self.cases[trial.case])
            part = replace(given, parent=given.request_id)
            composed = await composer.compose(use, part, count=False)
            began = time.monotonic()
            answer = await ask(composed, door, given)
            usage = answer.usage
            return {
                "text": answer.text,
                "answer": answer.answer,
                "question": str(composed.rendered.messages[-1]["content"]),
                "seconds": round(time.monotonic() - began, 6),
                "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
                "cached_tokens": usage.cached_tokens,
            }

        with AnswerFiles(*self._answers) as files:
            work = Work(put, _refused, files, pace, lambda: tick("asking", len(files.done), len(self)), call)
            await work.perform((_line(trial.id) for trial in self), None)
            tick("asking", len(files.done), len(self))

    async def score_all(self, scorers: Sequence[Scorer], pace: Pace, call: Call, tick: Tick) -> None:
        """Score what was answered and not scored yet, by each scorer."""
        answered = {each.trial.id: each for each in self.answered() if each.error is None}
        wanted = [f"{trial}/{index}" for trial in answered for index in range(len(scorers))]

        async def put(line: Line, given: Call) -> Mapping[str, Any]:
            del given  # scorers have their own
            trial, _, index = line.custom_id.partition("/")
            each = answered[trial]
            variant = self.variants[each.trial.variant]
            output = Output(
                text=each.text,
                answer=each.answer,
                reads_answer=variant.version.prompt.answer is not None,
                question=each.question,
            )
            score = await judged(scorers[int(index)], self.cases[each.trial.case], output)
            return {"value": score.value, "passed": score.passed, "reason": score.reason}

        with AnswerFiles(*self._scores) as files:
            work = Work(put, _refused, files, pace, lambda: tick("scoring", len(files.done), len(wanted)), call)
            await work.perform((_line(each) for each in wanted), None)
            tick("scoring", len(files.done), len(wanted))

    def answered(self) -> list[Answered]:
        """What came of the trials so far, failures included, in the order of the trials."""
        found: dict[str, Mapping[str, Any]] = {row["custom_id"]: row for path in self._answers for row in _rows(path)}
        return [_answered(trial, found[trial.id]["response"]["body"]) for trial in self if trial.id in found]

    def scores(self) -> dict[tuple[str, int], Mapping[str, Any]]:
        """By trial's id and scorer's place: ``value``, ``passed``, ``reason``; a scorer that failed could not judge."""
        kept: dict[tuple[str, int], Mapping[str, Any]] = {}
        for path in self._scores:
            for row in _rows(path):
                trial, _, index = row["custom_id"].partition("/")
                body = row["response"]["body"]
                if "error" in body:
                    body = {"value": None, "passed": None, "reason": body["error"]}
                kept[trial, int(index)] = body
        return kept


Tick = Callable[[str, int, int], None]
"""Takes note of stage, done and total; may raise to stop the work."""


def _line(custom_id: str) -> Line:
    return Line(number=0, custom_id=custom_id, endpoint=_ENDPOINT, body={})


def _refused(error: PagodaError) -> tuple[int, Mapping[str, Any]]:
    return 0, {"error": f"{error.code}: {error.message}"}


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield orjson.loads(line)


def _answered(trial: Trial, body: Mapping[str, Any]) -> Answered:
    usage = body.get("usage") or {}
    return Answered(
        trial=trial,
        text=body.get("text", ""),
        answer=body.get("answer"),
        question=body.get("question", ""),
        seconds=body.get("seconds", 0.0),
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        cached_tokens=body.get("cached_tokens", 0),
        error=body.get("error"),
    )


def _typed(variable: Variable, value: Json) -> Json:
    """A cell as a variable takes it: tables of text know no types, and an object is told as JSON."""
    if isinstance(value, str):
        return value_from(variable, value)
    return orjson.dumps(value).decode() if isinstance(value, dict) else value
