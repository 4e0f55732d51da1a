"""The semantic cache: what its guard refuses, how its rates are measured, and when it stays off."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import Unavailable
from pagoda.core.types import Embed, Embeddings, Generation
from pagoda.service.cache.calibration import SAME, Calibration, Pair, Rate, calibrate, read_pairs, wilson
from pagoda.service.cache.guard import agree
from pagoda.service.cache.key import Request
from pagoda.service.cache.semantic import (
    Approval,
    Question,
    SemanticIndex,
    keep_approval,
    semantic_objection,
    without_question,
)

KINDS = {SAME, "negation", "number", "entity", "order", "time"}


def test_the_pairs_are_many_different_and_of_every_kind() -> None:
    pairs = read_pairs()
    assert {pair.kind for pair in pairs} == KINDS
    counts = Counter((pair.kind, pair.language) for pair in pairs)
    assert min(counts.values()) >= 30
    assert all(counts[kind, "en"] + counts[kind, "zh"] >= 60 for kind in KINDS)
    assert len({(pair.one, pair.other) for pair in pairs}) == len(pairs)
    assert all(pair.one != pair.other for pair in pairs)
    chosen = [pair.chooses for pair in pairs]
    assert 0.4 < sum(chosen) / len(chosen) < 0.6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is it safe?", "Is it unsafe?"),
        ("May I smoke here?", "May I not smoke here?"),
        ("Why does it work?", "Why doesn't it work?"),
        ("Give me 3 ideas", "Give me 4 ideas"),
        ("Give me three ideas", "Give me four ideas"),
        ("Ask Maria about it", "Ask Juan about it"),
        ("Does A pay B?", "Does B pay A?"),
        ("What happened yesterday?", "What will happen tomorrow?"),
        ("可以停车吗", "不可以停车吗"),
        ("买三个苹果", "买五个苹果"),
        ("甲借钱给乙", "乙借钱给甲"),
        ("昨天几点关门", "明天几点关门"),
    ],
)
def test_the_guard_refuses_what_embeddings_blur(one: str, other: str) -> None:
    assert not agree(one, other)
    assert not agree(other, one)
    assert agree(one, one)


def test_the_guard_lets_other_words_for_the_same_pass() -> None:
    assert agree("How do I reset my password?", "What are the steps to reset my password?")
    assert agree("怎么重置我的密码？", "重置密码的步骤是什么？")


@given(one=st.text(max_size=40), other=st.text(max_size=40))
def test_the_guard_is_symmetric_and_accepts_equals(one: str, other: str) -> None:
    assert agree(one, other) == agree(other, one)
    assert agree(one, one)


def unit(cosine: float) -> bytes:
    """A vector with that cosine to ``unit(1)``."""
    return array("f", [cosine, math.sqrt(max(0.0, 1 - cosine * cosine))]).tobytes()


def made_up(kind: str, count: int, language: str) -> list[Pair]:
    return [Pair(kind, language, f"{language} {kind} {n} a", f"{language} {kind} {n} b") for n in range(count)]  # type: ignore[arg-type]


def test_the_threshold_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    pairs, vectors = [], {}
    for language in ("en", "zh"):
        for kind, near, far in ((SAME, 0.95, 0.8), ("order", 0.9, 0.5)):
            made = made_up(kind, 200, language)
            for number, pair in enumerate(made):
                vectors[pair.one] = unit(1.0)
                vectors[pair.other] = unit(near if number % 2 else far)
            pairs += made
    found = calibrate(pairs, vectors, 0.01, guarded=False)
    assert 0.9 < found.threshold <= 0.951
    assert sum(rate.pairs for rate in found.rates) == sum(not pair.chooses for pair in pairs)
    assert 0.4 < found.true_hits < 0.6
    assert found.false_hits == 0.0
    assert found.verdict(0.01) == ""
    loose = calibrate(pairs, vectors, 0.6, guarded=False)
    assert loose.threshold < 0.9
    assert loose.false_hits > 0.3
    assert "exceeds the allowed 1.0%" in loose.verdict(0.01)


def test_a_measurement_that_leaves_nothing_says_that_it_is_useless() -> None:
    pairs = made_up(SAME, 50, "en") + made_up("order", 50, "en") + made_up("order", 50, "zh")
    vectors = {text: unit(1.0) for pair in pairs for text in (pair.one, pair.other)}
    found = calibrate(pairs, vectors, 0.01, guarded=False)
    assert found.true_hits == 0.0
    assert "useless" in found.verdict(0.01)


def test_wilson_intervals_are_those_of_the_textbook() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)


GOOD = Calibration(True, 0.9, (Rate(SAME, "en", 10, 9), Rate("order", "en", 100, 1), Rate("order", "zh", 100, 0)))


def test_it_stays_off_without_a_fitting_calibration(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "semantic.json"
    assert "never calibrated" in semantic_objection(path, "e5", 0.01)[1]
    keep_approval(path, Approval.of("e5", GOOD, 0.01))
    approval, objection = semantic_objection(path, "e5", 0.01)
    assert (objection, approval and approval.threshold) == ("", 0.9)
    assert "calibrated for e5" in semantic_objection(path, "other", 0.01)[1]
    assert "exceeds the allowed 0.5%" in semantic_objection(path, "e5", 0.005)[1]
    keep_approval(path, dataclasses.replace(Approval.of("e5", GOOD, 0.01), form="older"))
    assert "older version" in semantic_objection(path, "e5", 0.01)[1]
    path.write_text("{not json")
    assert "cannot be read" in semantic_objection(path, "e5", 0.01)[1]


def question(text: str, cosine: float, bucket: bytes = b"b") -> Question:
    return Question(text, unit(cosine), bucket)


def test_the_nearest_question_that_agrees_is_found_in_its_own_bucket_only() -> None:
    async def never(tenant: str, text: str) -> Embeddings:
        raise AssertionError

    index = SemanticIndex(0.9, never)
    asked = question("how do I do it", 1.0)
    assert index.nearest(asked) is None
    index.add(b"1", question("what is the way to do it", 0.95))
    index.add(b"2", question("how do I not do it", 0.99))
    index.add(b"3", question("far away", 0.5))
    index.add(b"4", question("the way it is done", 0.97, bucket=b"another tenant or model"))
    assert index.nearest(asked) == b"1"
    index.forget(b"1", asked)
    assert index.nearest(asked) is None


async def test_a_question_is_the_last_message_of_the_user() -> None:
    base = Generation(model="m", messages=({"role": "system", "content": "s"}, {"role": "user", "content": "hi"}))
    blank = without_question(base)
    assert blank is not None
    assert blank[0] == "hi"
    others: list[Request] = [
        Embed(model="m", inputs=("hi",)),
        Generation(model="m", prompt="hi"),
        Generation(model="m", messages=({"role": "assistant", "content": "hi"},)),
        Generation(model="m", messages=({"role": "user", "content": " "},)),
    ]
    assert [without_question(each) for each in others] == [None] * 4

    async def broken(tenant: str, text: str) -> Embeddings:
        raise Unavailable("no embedding model here")

    index = SemanticIndex(0.9, broken)
    assert await index.question("t", base, lambda rest: b"") is None, "the request goes on without it"
