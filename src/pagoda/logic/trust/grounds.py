"""Which of some passages bears a sentence out, by the local judge, and by itself.

Each passage is looked at alone: who opens the place that a number stands for should find all of the sentence there.
A sentence of hardly a word rests on nothing, however often its words stand somewhere ("The answer is:").
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property

from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.trust.checking import MOST_CHARACTERS
from pagoda.logic.trust.claims import split_claims
from pagoda.logic.trust.details import details
from pagoda.logic.trust.evidence import Library, content
from pagoda.logic.trust.judging import LocalJudge, local_weights
from pagoda.logic.trust.subject import Source

_LEAST_WORDS = 3  # that tell something, unless there is a number or a date


class JudgedGrounds:
    """Passages, numbered from 1, of an answer to a question."""

    def __init__(self, passages: Sequence[Passage], question: str) -> None:
        self._passages = passages
        self._question = question

    async def find(self, sentence: str) -> int | None:
        """The number of the passage that bears out all that a sentence claims, best of all; off the event loop."""
        return await asyncio.to_thread(self._find, sentence)

    @cached_property
    def _libraries(self) -> list[Library]:
        return [Library([Source(name=each.source, text=each.text, start=each.start)]) for each in self._passages]

    def _find(self, sentence: str) -> int | None:
        claims = [claim.text for claim in split_claims(sentence) if claim.checkable]
        if not any(_tells(claim) for claim in claims) or any(len(claim) > MOST_CHARACTERS for claim in claims):
            return None
        judge, chances = LocalJudge(local_weights()), dict[int, float]()
        for number, library in enumerate(self._libraries, 1):
            found = [judge.read(library.look_up(claim, self._question)) for claim in claims]
            if all(each.verdict == "supported" for each in found):
                chances[number] = min(each.supported or 0.0 for each in found)
        return max(chances, key=chances.__getitem__, default=None)


def _tells(claim: str) -> bool:
    """Whether there is enough in a claim to be found somewhere by more than chance."""
    return len(content(claim)) >= _LEAST_WORDS or any(each.kind != "name" for each in details(claim))
