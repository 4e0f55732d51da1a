"""What is wrong with an answer by itself: sums that do not come out, and claims that stand against one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.trust.arithmetic import slips, sums
from pagoda.logic.trust.contradictions import conflict, denies


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("He has 12 × 3 = 36 eggs and 15% * 80 = 13.", [("15% * 80 = 13", "12")]),
        ("3 + 4 = 8 - 1 = 7", []),
        ("3 + 4 = 7 * 2 = 14", [("3 + 4 = 7 * 2", "7")]),
        ("$5 * 3 = $16", [("$5 * 3 = $16", "15")]),
        ("1/3 = 0.33, 2/3 ≈ 0.67, 1,200 / 4 = 300", []),
        ("7 times 8 equals 54", [("7 times 8 equals 54", "56")]),
        ("3加4等于8。１２＊３＝３６。", [("3加4等于8", "7")]),
        ("6 x 7 = 41", [("6 x 7 = 41", "42")]),
        ("x = 5, 10 - 2x = 4, 2023 = 2023, 1/0 = 0", []),
    ],
)
def test_sums_are_recomputed(text: str, wrong: list[tuple[str, str]]) -> None:
    assert [(text[slip.start : slip.end], slip.value) for slip in slips(text)] == wrong


@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from("+-*"), st.integers(-3, 3))
def test_a_sum_is_wrong_exactly_if_it_is(left: int, right: int, sign: str, off: int) -> None:
    value = {"+": left + right, "-": left - right, "*": left * right}[sign]
    text = f"So {left} {sign} {right} = {value + off}, he says."
    assert sums(text) == 1
    assert [slip.value for slip in slips(text)] == ([str(value)] if off else [])


@given(st.text(st.sampled_from(list("0123456789+-*/=().,%$ x×等于加")), max_size=60))
def test_no_text_breaks_the_recomputing(text: str) -> None:
    for slip in slips(text):
        assert 0 <= slip.start < slip.end <= len(text)


@pytest.mark.parametrize(
    ("one", "other", "against"),
    [
        ("The tower was built in 1990.", "The tower was built in 1991.", True),
        ("The capital of France is Paris.", "The capital of France is Lyon.", True),
        ("The shop is open on Sunday.", "The shop is not open on Sunday.", True),
        ("It sold 5 million in 2020.", "It sold 6 million in 2020.", True),
        ("图书馆周末开门。", "图书馆周末不开门。", True),
        ("会议在5月3日举行。", "会议在6月3日举行。", True),
        ("Paris is a big city.", "Lyon is a big city.", False),
        ("Alice was born in 1990.", "Bob was born in 1992.", False),
        ("It sold 5 million in 2020.", "It sold 5 million in 2021.", False),
        ("The shop is open.", "Bread is made of flour.", False),
        ("门票三十元。", "门票30元。", False),
    ],
)
def test_claims_of_the_same_words_stand_against_one_another(one: str, other: str, against: bool) -> None:
    assert (conflict(one, other) is not None) == against
    assert (conflict(other, one) is not None) == against


def test_contradictions_are_found_in_an_answer_and_with_earlier_ones() -> None:
    [found] = denies("The shop is open on Sunday. It sells bread. The shop is not open on Sunday.")
    assert (found.claim.start, found.within, found.other.text) == (44, True, "The shop is open on Sunday.")
    [found] = denies("The tower was built in 1991.", "The tower was built in 1990.")
    assert (found.within, found.why) == (False, "1991 against 1990")
