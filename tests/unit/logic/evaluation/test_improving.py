"""The search for a better prompt: what candidates are, what they are judged on, and what is kept."""

from __future__ import annotations

import random

import pytest

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.candidates import Candidate, workbench
from pagoda.logic.evaluation.improving import Space, Tried, best_of, search, split
from pagoda.logic.evaluation.score import Case
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.rendering import render
from tests.unit.logic.prompts.sheets import SENTIMENT

POOL = tuple(Case(id=str(n), values={"text": f"text {n}", "other": 1}, expected="good") for n in range(4))
TASK = "name: p\nvariables: {text: {}}\nlanguages: {en: {task: Judge., input: '{{text}}', requirements: Old.}}"
PART = (
    "name: p\nvariables: {text: {}}\nlanguages: {en: {parts: {instruction: Old.}, "
    "messages: [{user: '{{> instruction}} {{text}}'}]}}"
)


def test_a_candidate_is_the_file_with_other_instructions_and_examples() -> None:
    for source in (TASK, PART):
        bench = workbench(read_prompt(source), None, ["Be brief.", "Be kind."], POOL)
        assert bench.write(Candidate()) is bench.base
        better = bench.write(Candidate(1, (2, 0)))
        said = " | ".join(str(message["content"]) for message in render(better, {"text": "T"}).messages)
        assert "Be kind." in said
        assert "Old." not in said
        assert said.index("text 2") < said.index("text 0") < said.rindex("T")
        assert better.digest != bench.write(Candidate(1, (0, 2))).digest, "order is part of it"


def test_the_chosen_language_is_varied_alone() -> None:
    bench = workbench(read_prompt(SENTIMENT), "en", ["Only one word."], POOL)
    better = bench.write(Candidate(0, (1,)))
    assert "Only one word." in str(render(better, {"text": "x"}, "en").messages)
    assert "Only one word." not in str(render(better, {"text": "x"}, "zh").messages)


def test_a_prompt_without_a_place_for_instructions_is_refused() -> None:
    plain = "name: p\nlanguages: {en: {messages: [{user: Hello}]}}"
    with pytest.raises(InvalidRequest, match="has no place for instructions"):
        workbench(read_prompt(plain), None, ["x"], ())
    with pytest.raises(InvalidRequest, match="--expected"):
        workbench(read_prompt(TASK), None, [], [Case(id="1", values={})])


def test_the_three_parts_share_no_case() -> None:
    cases = [Case(id=str(n), values={}) for n in range(50)]
    parts = split(cases, 10, 1)
    assert [len(part) for part in (parts.pool, parts.training, parts.held_out)] == [10, 20, 20]
    assert len({case.id for part in (parts.pool, parts.training, parts.held_out) for case in part}) == 50
    assert split(cases, 10, 1) == parts != split(cases, 10, 2)
    with pytest.raises(InvalidRequest, match="too few"):
        split(cases[:6], 2, 1)


async def judged(candidate: Candidate) -> float:
    """The best is instruction 1 with example 3 first."""
    return 0.4 + 0.3 * (candidate.instruction == 1) + 0.3 * (candidate.examples[:1] == (3,))


async def test_the_search_tries_the_prompt_itself_first_and_finds_better_ones() -> None:
    tried = await search(Space(instructions=2, pool=4, most_shots=2), judged, 60, seed=1)
    assert tried[0] == Tried(Candidate(), 0.4)
    assert best_of(tried).rate == pytest.approx(1.0)
    assert len({each.candidate for each in tried}) == len(tried), "equal ones are tried once"
    assert all(len(set(each.candidate.examples)) == len(each.candidate.examples) for each in tried)


async def test_a_search_that_goes_on_proposes_the_same_again() -> None:
    space = Space(instructions=1, pool=4, most_shots=3)
    assert await search(space, judged, 15, seed=3) == await search(space, judged, 15, seed=3)


async def test_where_nothing_is_better_the_prompt_itself_stays() -> None:
    rng = random.Random(0)
    noise: dict[Candidate, float] = {}

    async def worse(candidate: Candidate) -> float:
        return noise.setdefault(candidate, 0.9 if candidate == Candidate() else 0.8 * rng.random())

    assert (
        best_of(await search(Space(instructions=0, pool=4, most_shots=2), worse, 20, seed=0)).candidate == Candidate()
    )
