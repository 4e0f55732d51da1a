"""What is wrong with an answer by itself: sums that do not come out, and claims that stand against one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.trust.arithmetic import Slip, recompute
from pagoda.logic.trust.contradictions import contradictions


def slips(text: str) -> list[Slip]:
    return recompute(text)[0]


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 + 4 * 2 = 12", "11"),
        ("12,000 / 4 = 3,001", "3000"),
        ("20% * 50 = 11", "10"),
        ("8 = 3 + 4", "7"),
        ("1. (3 + 4) * 2 = 15", "14"),
        ("- 12 * 3 = 35", "36"),
        ("Total: **3 + 4 = 8**.", "7"),
        ("So (3 + 4 = 8).", "7"),
        ("y = 2 + 3 = 6", "5"),
        ("1,234 * 3 ≈ 4,700", "3702"),
        ("３＋４＝８", "7"),
    ],
)
def test_a_wrong_sum_is_found_however_it_is_set(text: str, value: str) -> None:
    assert [slip.value for slip in slips(text)] == [value]


@pytest.mark.parametrize(
    "text",
    [
        *("x + 3 = 7", "2x = 10", "f(3) = 9", "f(3) + 1 = 9", "3 + 4x = 11", "5 - x = 3", "√16 + 9 = 13"),
        *("sin 30 + 1 = 1.5", "3² + 4 = 13", "2^{3} + 1 = 9", "5! + 3 = 123", "5 ± 2 + 1 = 8", "|3 - 5| = 2"),
        *("2x +\n 3 + 4 = 9", "max(2, 3) + 4 = 7", "\\cdot 3 + 4 = 8", "根号16 + 9 = 13", "负3 + 5 = 2"),
        *("2023-10-15 = 2023/10/15", "Chapters 3-5 = 40 pages", "12:30 - 11:00 = 1.5", "version 3.11 - 1 = 3.10.0"),
        *("v1.2 - 1 = 3", "2:3 + 1 = 4", "0x10 + 5 = 21", "3e5 + 1 = 300001", "1 + 1 = 10 (binary)"),
        *("3 + 4 = 1 (mod 6)", "19 / 5 = 3 remainder 4", "19 ÷ 5 = 3余4", "19/5 = 3 and 4/5", "3 + 4 != 8"),
        *("100 + 10% = 110", "(15/60) * 100 = 25%", "1/4 = 25 percent", "1,000 * 2,000 = 2 million", "5 × 4 = 2万"),
        *("1,234 * 3 ≈ 3,700", "0.33 = 1/3", "25 / 1/3 = 75", "$1 / 2 = 50 cents", "half of 10 + 2 = 7"),
    ],
)
def test_what_may_be_a_part_of_more_is_no_wrong_sum(text: str) -> None:
    assert slips(text) == []


@pytest.mark.parametrize(
    "unit",
    ["1", "1 ", "1,", "1.", "1,111", "1+", "(", "(1+", "1)", "- ", "*", "x ", "1 x ", "= ", "1 = ", "1 plus ", "加"],
)
def test_no_text_takes_longer_than_its_length(unit: str) -> None:
    for times, end in ((1_000_000, "= ?"), (1000, ""), (1000, "a")):
        assert slips(unit * (times // len(unit)) + end) == []


@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from("+-*"), st.integers(-3, 3))
def test_a_sum_is_wrong_exactly_if_it_is(left: int, right: int, sign: str, off: int) -> None:
    value = {"+": left + right, "-": left - right, "*": left * right}[sign]
    text = f"So {left} {sign} {right} = {value + off}, he says."
    assert recompute(text)[1] == 1
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
    assert bool(contradictions(one, [other])) == against
    assert bool(contradictions(other, [one])) == against


def test_contradictions_are_found_in_an_answer_and_with_earlier_ones() -> None:
    [found] = contradictions("The shop is open on Sunday. It sells bread. The shop is not open on Sunday.")
    assert (found.claim.start, found.within, found.other.text) == (44, True, "The shop is open on Sunday.")
    [found] = contradictions("The tower was built in 1991.", ["The tower was built in 1990."])
    assert (found.within, found.why) == (False, "1991 against 1990")
