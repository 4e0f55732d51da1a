"""A model as judge: one answer by criteria, or two answers in both orders.

What a judge says counts only where it can be read. Nonsense, an honest ``UNSURE``, and verdicts that follow the order
of the answers are "could not judge", with the judge's words as the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Json
from pagoda.logic.evaluation.score import UNREAD, Case, Output, Score, could_not_judge
from pagoda.logic.prompts.asking import PromptAnswer, ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion

Preferred: TypeAlias = Literal["first", "second", "tie"]
_MOST_REASON = 500


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that judges by criteria, in English or Chinese. A scorer, and more."""

    door: Inference
    model: str
    criteria: str
    call: Call
    language: str = "en"
    name: str = "judge"

    async def score(self, case: Case, output: Output) -> Score:
        """Whether an answer meets the criteria."""
        if output.said is None:
            return UNREAD
        values = {"criteria": self.criteria, "given": output.said}
        values |= {"question": output.question} if output.question else {}
        values |= {"expected": case.expected} if case.expected else {}
        said = await self._ask("criteria", values)
        if said.answer in ("PASS", "FAIL"):
            return Score(float(said.answer == "PASS"), said.answer == "PASS", said.text[:_MOST_REASON])
        return could_not_judge(f"the judge said: {said.text[:_MOST_REASON]}")

    async def prefer(self, question: str, first: str, second: str) -> tuple[Preferred | None, str]:
        """Which of two answers is better, asked in both orders; ``None`` where the judge cannot tell, and why."""
        values = {"criteria": self.criteria} | ({"question": question} if question else {})
        one = await self._ask("pairs", values | {"first": first, "second": second})
        other = await self._ask("pairs", values | {"first": second, "second": first})
        turned = {"FIRST": "SECOND", "SECOND": "FIRST"}
        if one.answer in (None, "UNSURE") or other.answer in (None, "UNSURE"):
            return None, f"the judge said: {one.text[:200]} / {other.text[:200]}"
        if turned.get(other.answer or "", other.answer) != one.answer:
            return None, f"the verdict follows the order: {one.answer} and, turned round, {other.answer}"
        word: Preferred = "first" if one.answer == "FIRST" else "second" if one.answer == "SECOND" else "tie"
        return word, one.text[:_MOST_REASON]

    async def _ask(self, name: str, values: dict[str, Json]) -> PromptAnswer:
        use = Use(version=_prompt(name), values=values, model=self.model, language=self.language)
        call = replace(self.call, purpose="judge")
        composed = await Composer(self.door, "").compose(use, call, count=False)
        return await ask(composed, self.door, call)


@dataclass(frozen=True, slots=True)
class Preference:
    """A judge that holds an answer against what is expected, in both orders: as good or better is a success."""

    judge: Judge
    name: str = "prefer"

    async def score(self, case: Case, output: Output) -> Score:
        """1 for better, a half for equally good, 0 for worse."""
        if case.expected is None:
            return could_not_judge("nothing is expected of this case")
        if output.said is None:
            return UNREAD
        preferred, why = await self.judge.prefer(output.question, output.said, case.expected)
        if preferred is None:
            return could_not_judge(why)
        return Score({"first": 1.0, "tie": 0.5, "second": 0.0}[preferred], preferred != "second", why)


@cache
def _prompt(name: str) -> PromptVersion:
    text = resources.files("pagoda.logic.evaluation").joinpath(f"judges/{name}.yaml").read_text(encoding="utf-8")
    return read_prompt(text, f"judges/{name}.yaml")
