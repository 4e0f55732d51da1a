"""Answers found in what models write, and votes over them."""

from __future__ import annotations

import pytest

from pagoda.logic.prompts.answers import find_answer, vote
from pagoda.logic.prompts.prompt import Reading

MARKS = {"en": "Answer:", "zh": "答案："}


@pytest.mark.parametrize(
    ("text", "language", "answer"),
    [
        ("1. Analyse: 3 apples.\n4. Answer: 1,250.50", "en", "1250.5"),
        ("Answer: 3\nNo, wrong.\nanswer: $18.00 per day.", "en", "18"),
        ("… 答案：１８元", "zh", "18"),
        ("… 答案: -0.50", "zh", "-0.5"),
        ("It is 18.", "en", None),
        ("Answer: I do not know", "en", None),
        ("", "en", None),
    ],
)
def test_a_number_after_its_mark(text: str, language: str, answer: str | None) -> None:
    assert find_answer(Reading(type="number", after=MARKS), text, language, {}) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("positive", "positive"),
        (" Positive.\n", "positive"),
        ("The review is negative, I think.", "negative"),
        ("positive or negative", None),
        ("not positively", None),
        ("very positive", "very positive"),
        ("neither", None),
    ],
)
def test_a_choice_is_the_only_one_that_is_named(text: str, answer: str | None) -> None:
    reading = Reading(type="choice", choices=("positive", "negative", "very positive"))
    assert find_answer(reading, text, "en", {}) == answer


def test_choices_may_come_from_a_variable_and_be_chinese() -> None:
    reading = Reading(type="choice", choices_from="labels")
    assert find_answer(reading, "这条评论是正面的。", "zh", {"labels": ["正面", "负面"]}) == "正面"


def test_json_is_found_bare_or_in_a_fence() -> None:
    reading = Reading(type="json")
    assert find_answer(reading, 'Here:\n```json\n{"b": 1, "a": 2}\n```', "en", {}) == '{"a":2,"b":1}'
    assert find_answer(reading, "no json", "en", {}) is None


def test_a_vote_counts_what_was_found_and_says_what_was_not() -> None:
    assert vote(["3", "4", None, "4"]).answer == "4"
    assert (vote(["3", "4"]).answer, vote(["3", "4"]).votes) == ("3", 1)
    nothing = vote([None, None])
    assert (nothing.answer, nothing.votes, nothing.samples, nothing.unread) == (None, 0, 2, 2)
