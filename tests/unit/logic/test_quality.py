"""Quality in production: rules in two languages, metrics by prompt, version and model, and what goes to people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from pagoda.core.errors import ConfigError
from pagoda.core.settings import Quality, Reviews
from pagoda.core.types import Call, Delta, Event, Finish, Generation, Started, TokenLogprob, Usage
from pagoda.logic.experiments.refusal import refuses
from pagoda.logic.quality.judging import ModelJudge
from pagoda.logic.quality.rules import RULES, Exchange
from pagoda.logic.quality.watch import Watch
from pagoda.service.telemetry import Telemetry
from tests.doors import ScriptedDoor

ASKED = Generation(model="m", messages=({"role": "user", "content": "Capital of France?"},))


async def events(text: str, reason: str = "stop", logprob: float | None = None) -> AsyncIterator[Event]:
    tokens = () if logprob is None else (TokenLogprob(text, logprob),)
    yield Started("m", "fake")
    yield Delta(0, text, tokens)
    yield Finish(0, reason)  # type: ignore[arg-type]
    yield Usage(3, 2)


class Queue:
    """A review queue that only remembers."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    async def enter(self, item: Any) -> Any:
        self.items.append(item)
        return item


async def hear(watch: Watch, answers: Sequence[AsyncIterator[Event]], **fields: Any) -> None:
    for number, answer in enumerate(answers):
        call = Call(request_id=f"r{number}", **fields)
        async for _ in watch.heard(answer, ASKED, call):
            pass
    await watch.close()


def points(telemetry: Telemetry, rule: str, **labels: str) -> float:
    found = telemetry.registry.get_sample_value(
        "pagoda_quality_points_total", {"model": "m", "prompt": "", "version": "", "rule": rule} | labels
    )
    return -1.0 if found is None else found


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("said", Exchange("?", "yes", "stop"), Exchange("?", " \n", "stop")),
        ("whole", Exchange("?", "yes", "stop"), Exchange("?", "yes", "length")),
        ("willing", Exchange("?", "I can help.", "stop"), Exchange("?", "I'm sorry, but I can't do that.", "stop")),
        (
            "willing",
            Exchange("?", "抱歉让您久等了,答案是四。", "stop"),
            Exchange("?", "抱歉,我无法回答这个问题。", "stop"),
        ),
        (
            "language",
            Exchange("法国的首都是哪里?", "巴黎 (Paris)", "stop"),
            Exchange("法国的首都是哪里?", "It is Paris.", "stop"),
        ),
        ("language", Exchange("Translate: cat", "cat is 猫 here", "stop"), Exchange("Why?", "因为如此", "stop")),
        ("steady", Exchange("?", "one two three four five six", "stop"), Exchange("?", "it is so and " * 9, "stop")),
        ("steady", Exchange("?", "巴黎是法国的首都,也是最大的城市。", "stop"), Exchange("?", "我不知道" * 9, "stop")),
    ],
)
def test_rules_tell_good_from_bad_in_both_languages(rule: str, good: Exchange, bad: Exchange) -> None:
    assert (RULES[rule](good), RULES[rule](bad)) == (True, False)


def test_a_refusal_is_known_by_how_an_answer_begins() -> None:
    assert refuses("As an AI language model, I cannot give medical advice.")
    assert refuses("作为一个人工智能，我无法提供这些信息。")
    assert not refuses("Sorry for the delay! The answer is 4.")
    assert not refuses("我不能同意更多：这本书很好。")


async def test_sampled_answers_are_counted_by_model_prompt_and_version() -> None:
    telemetry, queue = Telemetry(), Queue()
    watch = Watch((Quality(share=1.0), Reviews()), telemetry, queue.enter)
    await hear(watch, [events("Paris."), events("", "length")], prompt="capital@3")
    labels = {"prompt": "capital", "version": "3"}
    assert (points(telemetry, "said", **labels), points(telemetry, "whole", **labels)) == (1, 1)
    assert (
        telemetry.registry.get_sample_value("pagoda_quality_answers_total", {"model": "m", "rule": "said"} | labels)
        == 2
    )
    assert queue.items == []


async def test_a_judge_that_cannot_judge_is_counted_and_never_a_zero() -> None:
    telemetry, queue = Telemetry(), Queue()
    said: list[float | None] = [0.75, None]

    async def judge(exchange: Exchange, call: Call) -> float | None:
        assert (exchange.question, call.request_id[0]) == ("Capital of France?", "r")
        return said.pop(0)

    watch = Watch((Quality(share=1.0, judge_share=1.0), Reviews()), telemetry, queue.enter, judge)
    watch.start()
    async for _ in watch.heard(events("Paris."), ASKED, Call(request_id="r0")):
        pass
    async for _ in watch.heard(events("Paris."), ASKED, Call(request_id="r1")):
        pass
    while said:
        await asyncio.sleep(0)
    await watch.close()
    assert points(telemetry, "judge") == 0.75
    assert telemetry.registry.get_sample_value("pagoda_quality_unjudged_total", {"model": "m"}) == 1


@pytest.mark.parametrize(
    ("question", "said", "score"),
    [
        ("Capital of France?", "It is right. Verdict: PASS", 1.0),
        ("法国的首都是哪里？", "答错了。判定：FAIL", 0.0),
        ("Capital of France?", "Verdict: UNSURE", None),
        ("Capital of France?", "bananas", None),
    ],
)
async def test_a_model_judges_in_the_language_of_the_question(question: str, said: str, score: float | None) -> None:
    door = ScriptedDoor(lambda text, index: said)
    judge = ModelJudge(lambda: door, "judge", "It is right.")
    assert await judge(Exchange(question, "Paris.", "stop"), Call(tenant="blue", request_id="r")) == score
    [call] = door.calls
    assert (call.purpose, call.tenant, call.parent) == ("judge", "blue", "r")
    assert ("标准" in str(door.asked[0].messages)) == ("法" in question)


async def test_what_looks_wrong_is_queued_and_what_judges_say_is_not_looked_at() -> None:
    queue = Queue()
    settings = Reviews(confidence=0.5, flag=("bomb",))
    watch = Watch((Quality(), settings), Telemetry(), queue.enter)
    await hear(watch, [events("Paris.", logprob=-0.1), events("Lyon.", logprob=-1.2), events("A BOMB.")])
    assert [(item.request_id, item.reason) for item in queue.items] == [("r1", "confidence"), ("r2", "safety")]
    assert queue.items[0].detail == {"confidence": 0.3012}
    await hear(watch, [events("A bomb.")], purpose="judge")
    assert len(queue.items) == 2


async def test_a_random_sample_is_queued() -> None:
    queue = Queue()
    await hear(Watch((Quality(), Reviews(sample=1.0)), Telemetry(), queue.enter), [events("Paris.")])
    assert [(item.reason, item.answer, item.team) for item in queue.items] == [("sample", "Paris.", "local")]


def test_nothing_is_looked_at_where_nothing_is_asked_for() -> None:
    source = events("Paris.")
    watch = Watch((Quality(), Reviews()), Telemetry(), cast("Any", None))
    assert watch.heard(source, ASKED, Call()) is source


def test_a_rule_that_is_no_expression_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"reviews\.hold"):
        Watch((Quality(), Reviews(hold=("(",))), Telemetry(), cast("Any", None))
