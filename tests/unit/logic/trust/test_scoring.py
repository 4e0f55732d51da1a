"""Answers looked at from all sides over a scripted door: each family alone, what is missing, findings, policies."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib import resources
from types import SimpleNamespace
from typing import Any

import pytest

from pagoda.core.errors import InvalidRequest, ModelError, NotFound, Unavailable
from pagoda.core.types import (
    Call,
    Embed,
    Embeddings,
    Event,
    Generation,
    Score,
    Scores,
    TokenLogprob,
)
from pagoda.logic.trust.combination import combine, scale_name, scales
from pagoda.logic.trust.consistency import compare, read_samples, semantic_entropy
from pagoda.logic.trust.desk import TrustDesk, Wish
from pagoda.logic.trust.likelihood import read_tokens
from pagoda.logic.trust.policy import Policy
from pagoda.logic.trust.subject import FAMILIES, Source, Subject, unavailable
from pagoda.logic.trust.weights import read_weights
from tests.doors import ScriptedDoor

GUIDE = Source(name="guide.md", text="The museum was founded in 1884 by Maria Keller. A ticket costs twelve dollars.")
SUBJECT = Subject(question="When was the museum founded?", answer="In 1884.", sources=(GUIDE,), model="m")
CALL = Call(tenant="blue", request_id="req-7")


class Door(ScriptedDoor):
    """Scores each word with -1, the last one with -2."""

    def __init__(self, *samples: str, failing: bool = False) -> None:
        super().__init__(lambda text, index: samples[index % len(samples)] if samples else "In 1884.")
        self.scored: list[Score] = []
        self.failing = failing

    async def score(self, request: Score, call: Call) -> Scores:
        if self.failing:
            raise Unavailable("The engine is gone.")
        self.scored.append(request)
        tokens = [TokenLogprob(word, -1.0) for word in request.text.split()]
        return Scores(model=request.model, tokens=(*tokens[:-1], TokenLogprob(tokens[-1].token, -2.0)), prompt_tokens=9)

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        if self.failing:
            raise ModelError("There is no vector.")
        return await super().embed(request, call)


def desk(door: Door, queued: list[Any] | None = None) -> TrustDesk:
    async def enter(item: Any) -> Any:
        assert queued is not None
        queued.append(item)
        return SimpleNamespace(record=SimpleNamespace(id="rev-1"))

    return TrustDesk(lambda: pytest.fail("no collection"), lambda: door, enter)


async def test_all_families_together_give_a_calibrated_confidence() -> None:
    door = Door()
    scored = await desk(door).score(SUBJECT, CALL)
    told = scored.to_json()
    assert told["judged"]
    assert 0 < told["confidence"] < 1
    assert told["scale"] == "1:consistency+factuality+token_probability"
    assert told["mean"] == pytest.approx(sum(told["signals"][family]["value"] for family in FAMILIES) / 3)
    assert told["signals"]["token_probability"]["value"] == pytest.approx(math.exp(-1.5))
    assert told["signals"]["consistency"]["value"] == 1.0
    assert told["claims"][0]["verdict"] == "supported"
    assert (told["findings"], told["missing"]) == ([], {})
    assert all(call.purpose == "judge" and call.parent == "req-7" and call.tenant == "blue" for call in door.calls)
    [request] = door.scored
    assert GUIDE.text in request.context
    assert request.context.endswith("Question: When was the museum founded?\nAnswer:")
    assert request.text == " In 1884."


@pytest.mark.parametrize(
    ("family", "scale"),
    [
        ("token_probability", "1:sources+token_probability"),
        ("consistency", "1:consistency+sources"),
        ("factuality", "1:factuality"),
    ],
)
async def test_each_family_works_alone_and_the_others_are_told_as_missing(family: Any, scale: str) -> None:
    scored = await desk(Door()).score(SUBJECT, CALL, Wish(families=(family,)))
    found = scored.report.confidence
    assert found.value is not None
    assert found.families == (family,)
    assert set(found.missing) == set(FAMILIES) - {family}
    assert found.scale == scale


async def test_what_cannot_be_had_is_told_with_its_reason_and_never_made_up() -> None:
    bare = Subject(question="", answer="In 1884.")
    told = (await desk(Door(failing=True)).score(replace(SUBJECT, sources=()), CALL)).to_json()
    assert (told["confidence"], told["mean"], told["judged"], told["scale"]) == (None, None, False, None)
    assert told["missing"] == {
        "token_probability": "The engine is gone.",
        "consistency": "There is no vector.",
        "factuality": "there are no sources to hold its claims against",
    }
    assert told["outcome"]["sure"] is False
    told = (await desk(Door()).score(bare, CALL)).to_json()
    assert "no model was named" in told["missing"]["token_probability"]
    with pytest.raises(InvalidRequest, match="answer is empty"):
        await desk(Door()).score(replace(bare, answer=" "), CALL)
    idle = (await desk(Door()).score(replace(SUBJECT, answer="I do not know."), CALL)).to_json()
    assert idle["missing"]["factuality"] == "it claims nothing that sources could bear out"
    assert idle["scale"] == "1:consistency+sources+token_probability"


async def test_what_is_fitted_without_sources_says_nothing_of_an_answer_that_has_them() -> None:
    asked_back = replace(SUBJECT, answer="When was the museum founded?")
    beside = (await desk(Door()).score(asked_back, CALL)).report.confidence
    alone = (await desk(Door()).score(replace(asked_back, sources=()), CALL)).report.confidence
    assert (beside.scale, alone.scale) == (
        "1:consistency+sources+token_probability",
        "1:consistency+token_probability",
    )
    assert beside.value is not None
    assert beside.value < 0.5
    blank = replace(asked_back, sources=(Source(name="empty", text=" "),))
    assert (await desk(Door()).score(blank, CALL)).report.confidence == alone


async def test_when_one_family_fails_its_error_is_told_and_no_other_is_left_running() -> None:
    class Lost(Door):
        ended = False

        async def score(self, request: Score, call: Call) -> Scores:
            try:
                return await asyncio.Event().wait()  # type: ignore[return-value]
            finally:
                self.ended = True

        async def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
            if request.model == "judge":
                raise NotFound("There is no model judge.")
            async for event in super().complete(request, call):
                yield event

    door = Lost()
    with pytest.raises(NotFound, match="no model judge"):
        await desk(door).score(SUBJECT, CALL, Wish(judge="judge", families=("token_probability", "factuality")))
    assert door.ended


async def test_findings_are_of_three_kinds_and_carry_their_places() -> None:
    answer = "It was founded in 1894. 12 * 3 = 35. A ticket costs twelve dollars. A ticket costs twenty dollars."
    subject = replace(SUBJECT, answer=answer, earlier=("It was founded in 1884.",))
    report = (await desk(Door()).score(subject, CALL)).report
    found = {(each.kind, each.text) for each in report.findings}
    assert ("logical", "12 * 3 = 35") in found
    assert ("consistency", "A ticket costs twenty dollars.") in found
    assert ("consistency", "It was founded in 1894.") in found
    assert ("factual", "It was founded in 1894.") in found
    assert all(answer[each.start : each.end] == each.text for each in report.findings)
    assert report.sums == 1


async def test_a_wrong_sum_or_a_contradiction_is_never_sure() -> None:
    subject = replace(SUBJECT, answer="In 1884. 2 + 2 = 5.")
    scored = await desk(Door()).score(subject, CALL, Wish(policy=Policy(threshold=0.0)))
    assert not scored.outcome.sure
    assert (await desk(Door()).score(SUBJECT, CALL, Wish(policy=Policy(threshold=0.0)))).outcome.sure


async def test_a_contradiction_leaves_the_other_families_their_say() -> None:
    answer = "A ticket costs twelve dollars. A ticket costs twenty dollars."
    scored = await desk(Door()).score(replace(SUBJECT, answer=answer, question=""), CALL)
    found = scored.report.confidence
    assert (found.families, found.value is None) == (("token_probability", "factuality"), False)
    assert "without the question" in found.missing["consistency"]
    assert "consistency" in {each.kind for each in scored.report.findings}
    assert not scored.outcome.sure


async def test_below_the_bar_an_answer_is_kept_withheld_reviewed_or_asked_anew() -> None:
    high = 1.0
    kept = await desk(Door()).score(SUBJECT, CALL, Wish(policy=Policy(threshold=high)))
    assert (kept.outcome.action, kept.outcome.sure, kept.outcome.answer) == ("keep", False, "In 1884.")
    withheld = await desk(Door()).score(SUBJECT, CALL, Wish(policy=Policy(threshold=high, action="abstain")))
    assert withheld.outcome.answer == "I am not sure enough of an answer to give one."
    queued: list[Any] = []
    sent = await desk(Door(), queued).score(SUBJECT, CALL, Wish(policy=Policy(threshold=high, action="review")))
    assert sent.outcome.review == "rev-1"
    assert (queued[0].reason, queued[0].team, queued[0].answer, queued[0].request_id) == (
        "confidence",
        "blue",
        "In 1884.",
        "req-7",
    )
    door = Door("It was founded in 1884 by Maria Keller.")
    asked = await desk(door).score(SUBJECT, CALL, Wish(policy=Policy(threshold=high, action="ask", model="better")))
    assert asked.outcome.model == "better"
    assert asked.outcome.answer == "It was founded in 1884 by Maria Keller."
    assert asked.outcome.report is not asked.report
    assert "better" in {request.model for request in door.asked}
    sure = await desk(Door()).score(SUBJECT, CALL, Wish(policy=Policy(threshold=0.0, action="abstain")))
    assert (sure.outcome.action, sure.outcome.answer) == ("keep", "In 1884.")


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"action": "ask"}, {"model": "m"}])
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Policy(**wrong)


async def test_samples_are_clustered_by_meaning() -> None:
    texts = ["In 1884.", "It was in 1884.", "1894", "1884, they say", "not in 1884"]
    signal = read_samples(await compare(texts, "When was it?", Door(), CALL), 0)
    assert signal.detail["clusters"] == [2, 1, 1]
    assert signal.detail["semantic_entropy"] == pytest.approx(semantic_entropy([2, 1, 1]))
    assert signal.value == 0.5
    assert semantic_entropy([4]) == 0
    assert semantic_entropy([1, 1, 1, 1]) == pytest.approx(math.log(4))
    assert read_samples(await compare(texts, "When was it?", Door(), CALL), 1).value == 0.0


async def test_log_probabilities_of_the_generation_are_taken_as_they_are() -> None:
    door = Door()
    told = replace(SUBJECT, logprobs=(TokenLogprob("In", -0.5), TokenLogprob(" 1884", -1.5)))
    report = (await desk(door).score(told, CALL, Wish(families=("token_probability",)))).report
    assert report.signals[0].value == pytest.approx(math.exp(-1.0))
    assert report.signals[0].detail["least_token"] == " 1884"
    assert not door.scored
    assert read_tokens((), "score").value is None


def test_every_set_of_families_has_a_scale_and_unknown_ones_are_not_judged() -> None:
    assert len(scales()) == 10
    assert combine(SUBJECT, [unavailable(family, "no") for family in FAMILIES]).value is None
    signal = read_tokens((TokenLogprob("a", -1.0),), "score")
    assert combine(SUBJECT, [signal], among={}).value is None
    assert scale_name(FAMILIES, sourced=True) in scales()


@pytest.mark.parametrize("name", sorted(scales()))
def test_no_signal_speaks_against_itself(name: str) -> None:
    regression = scales()[name].regression
    weights = dict(zip(regression.names, regression.weights, strict=True))
    rising = {"mean_logprob", "least_logprob", "agreement", "shared", "mean_support", "least_odds"}
    rising |= {"near_question", "ordered_pairs"}
    assert all(weights[feature] >= 0 for feature in rising & weights.keys())


@pytest.mark.parametrize("name", ["judge", "confidence"])
def test_coefficients_have_a_card_and_are_small(name: str) -> None:
    card = read_weights(name)["card"]
    assert {"what", "data", "rebuild", "figures"} <= set(card)
    file = resources.files("pagoda.logic.trust.weights").joinpath(f"{name}-1.json")
    assert len(file.read_bytes()) < 2_000_000
    assert json.loads(file.read_text(encoding="utf-8"))["version"] == 1
