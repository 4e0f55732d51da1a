"""Prompts made ready for a model and asked: examples chosen, tokens counted, what does not fit left out by its rule."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.core.errors import ContextTooLong
from pagoda.core.types import Call
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.choosing import nearest, within_budget
from pagoda.logic.prompts.composing import Composed, Composer, Use
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import FewShot
from tests.doors import ScriptedDoor
from tests.unit.logic.prompts.sheets import SENTIMENT

SIMILAR = SENTIMENT.replace("    count: 2\n", "    choose: similar\n    count: 2\n")


async def composed(source: str, text: str, door: ScriptedDoor, **options: bool) -> Composed:
    use = Use(version=read_prompt(source), values={"text": text}, model="m")
    return await Composer(door, "e").compose(use, Call(), **options)


async def test_similar_examples_are_shown_the_nearest_last() -> None:
    door = ScriptedDoor()
    ready = await composed(SIMILAR, "Two hours lost lost.", door)
    assert [each.values["text"] for each in ready.rendered.examples][-1] == "Two hours lost."
    again = await Composer(door, "e").compose(
        Use(version=ready.rendered.version, values={"text": "dull"}, model="m"), Call()
    )
    assert again.rendered.examples[-1].values["text"] == "So dull."


async def test_vectors_of_examples_are_asked_for_once() -> None:
    door = ScriptedDoor()
    composer = Composer(door, "e")
    version = read_prompt(SIMILAR)
    for text in ("one", "two", "three"):
        await composer.compose(Use(version=version, values={"text": text}, model="m"), Call())
    assert door.embedded == ["A joy.", "Two hours lost.", "So dull.", "one", "two", "three"]


def test_diverse_weighs_likeness_to_what_was_chosen() -> None:
    vectors = np.array([[1, 0], [0.99, 0.141], [0.6, 0.8]], dtype=np.float32)
    question = np.array([1, 0.0], dtype=np.float32)
    assert nearest(vectors, question, FewShot(examples=(), choose="similar", count=2)) == [0, 1]
    assert nearest(vectors, question, FewShot(examples=(), choose="diverse", count=2, relevance=0.3)) == [0, 2]
    assert sorted(nearest(vectors, question, FewShot(examples=(), choose="diverse", count=9))) == [0, 1, 2]


async def test_a_budget_of_tokens_bounds_the_examples() -> None:
    assert within_budget([2, 0, 1], [5, 3, 9], 9) == [2]
    assert within_budget([0, 2, 1], [5, 4, 9], 9) == [0, 1]
    ready = await composed(SENTIMENT.replace("count: 2", "count: 3\n    tokens: 8"), "x", ScriptedDoor())
    assert [each.values["text"] for each in ready.rendered.examples] == ["A joy.", "So dull."]


async def test_tokens_are_known_before_anything_is_asked() -> None:
    door = ScriptedDoor()
    ready = await composed(SENTIMENT, "Fine.", door)
    said = " ".join(str(message["content"]) for message in ready.rendered.messages)
    assert (ready.tokens, ready.context, door.asked) == (len(said.split()), 1000, [])


async def test_what_does_not_fit_goes_by_the_rule_examples_first_then_text() -> None:
    whole = (await composed(SENTIMENT, "w " * 50, ScriptedDoor())).tokens or 0
    fewer = await composed(SENTIMENT, "w " * 50, ScriptedDoor(context=whole + 8 - 1))
    assert (fewer.dropped, fewer.trimmed, len(fewer.rendered.examples)) == (1, (), 1)
    cut = await composed(SENTIMENT, "w " * 50, ScriptedDoor(context=40))
    assert (cut.dropped, cut.trimmed) == (2, ("text",))
    assert cut.tokens is not None
    assert cut.tokens + 8 <= 40
    more = str(cut.rendered.values["text"]).count("w")
    assert more > 10, "as much as fits is kept"
    assert str(cut.rendered.values["text"]).endswith("…")


async def test_what_may_not_be_cut_is_refused() -> None:
    source = SENTIMENT.replace(", trim: end", "")
    with pytest.raises(ContextTooLong):
        await composed(source, "w " * 50, ScriptedDoor(context=40))
    with pytest.raises(ContextTooLong):
        await composed(SENTIMENT, "w " * 50, ScriptedDoor(context=12))


async def test_a_short_prompt_is_not_counted_where_nobody_wants_to_know() -> None:
    door = ScriptedDoor()
    assert (await composed(SENTIMENT, "Fine.", door, count=False)).tokens is None
    assert door.counted == 0
    await composed(SENTIMENT, "word " * 500, door, count=False)
    assert door.counted == 1


async def test_self_consistency_draws_samples_in_one_request_and_votes() -> None:
    source = SENTIMENT.replace("techniques:", "techniques:\n  self-consistency: {samples: 3, temperature: 0.9}")
    door = ScriptedDoor(lambda text, index: ["Good!", "no idea", "good"][index])
    answer = await ask(await composed(source, "Fine.", door), door, Call())
    assert (answer.answer, answer.text) == ("good", "Good!")
    assert answer.vote is not None
    assert (answer.vote.votes, answer.vote.samples, answer.vote.unread) == (2, 3, 1)
    assert [(request.n, request.sampling.temperature) for request in door.asked] == [(3, 0.9)]
    assert door.calls[0].prompt == "sentiment@1"


async def test_an_answer_that_is_not_there_is_none() -> None:
    door = ScriptedDoor(lambda text, index: "hm")
    answer = await ask(await composed(SENTIMENT, "Fine.", door), door, Call())
    assert (answer.answer, answer.text, answer.vote) == (None, "hm", None)
