"""Texts cut into claims, and the details in them: exact places, English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.trust.claims import split_claims
from pagoda.logic.trust.details import denials, details, with_plain_numbers

WRITTEN = st.text(st.sampled_from(list("aA1 .,;!?\n[]-。！？；“”第三十万月年不没是《》12,5%MayX")), max_size=80)


def texts(text: str) -> list[str]:
    return [claim.text for claim in split_claims(text)]


@given(st.one_of(st.text(max_size=200), WRITTEN))
def test_claims_are_exact_in_order_and_apart(text: str) -> None:
    end = 0
    for claim in split_claims(text):
        assert claim.text == text[claim.start : claim.end]
        assert claim.text.strip() == claim.text != ""
        assert claim.start >= end
        end = claim.end


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (
            "Dr. Li was born in the U.S. in 1990. She has 3.5 cats!",
            ["Dr. Li was born in the U.S. in 1990.", "She has 3.5 cats!"],
        ),
        ("Open at nine [1]. Closed on Sunday. [2][3]", ["Open at nine [1].", "Closed on Sunday."]),
        ("- one thing\n2. Another thing\n3) Last", ["one thing", "Another thing", "Last"]),
        ("九点开门；周末休息。门票三十元！", ["九点开门；", "周末休息。", "门票三十元！"]),
        ("他说：“明天来。”她没来。", ["他说：“明天来。”", "她没来。"]),
        (" \n — [1] … ", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, claims: list[str]) -> None:
    assert texts(text) == claims


def test_what_claims_nothing_is_told_apart() -> None:
    text = "Sure! Is it open? It is open. I hope this helps. 好的。你知道吗？它开门。希望对你有帮助。"
    assert [claim.text for claim in split_claims(text) if claim.checkable] == ["It is open.", "它开门。"]


def test_no_more_claims_than_wanted() -> None:
    assert len(split_claims("A b. " * 500)) == 200
    assert texts("一。二。三。")[:2] == [claim.text for claim in split_claims("一。二。三。", 2)]


def test_none_are_given_where_none_are_wanted() -> None:
    assert split_claims("One. Two.", 0) == []


@pytest.mark.parametrize(
    "unit",
    [
        "Mr. ",
        "1.",
        ".",
        "a.",
        "[1] ",
        "[1] a ",
        "[1,",
        " ",
        "= ",
        "=",
        "A.",
        "Ab ",
        "one ",
        "三",
        "Q",
        "（",
        "\n",
        "? ",
    ],
)
def test_no_text_takes_longer_than_its_length(unit: str) -> None:
    text = f"a{unit * (500_000 // len(unit))}a"
    assert split_claims(text, 10)
    assert isinstance(details(text), list)


@pytest.mark.parametrize("unit", ["9", ",111", "九", "亿", "hundred ", "one million "])
def test_a_number_of_any_length_stands_for_something(unit: str) -> None:
    numbers = [("1" if unit == ",111" else "") + (unit * times).strip() for times in (5000, 5001)]
    [found], [other] = (details(f"It is {number} dollars.") for number in numbers)
    assert (found.kind, found.start, found.end) == ("number", 6, 6 + len(numbers[0]))
    assert found.value != other.value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It cost 1,200.50 dollars", [("number", "1200.5")]),
        (
            "３百 people, twelve dogs and three hundred and five cats",
            [("number", "300"), ("number", "12"), ("number", "305")],
        ),
        ("3 million", [("number", "3000000")]),
        ("一千二百人，三百二十万元，二〇一三年", [("number", "1200"), ("number", "3200000"), ("number", "2013")]),
        ("周五九点开门，星期三", [("number", "9")]),
        ("on 5 May 1990", [("number", "5"), ("date", "month 5"), ("number", "1990")]),
        ("5月3日", [("date", "month 5"), ("number", "3")]),
        ("He may go to the United States of America", [("name", "united states of america")]),
        ("《红楼梦》很长", [("name", "红楼梦")]),
        ("as told [12].", []),
        ("the one that", []),
    ],
)
def test_details_have_one_form(text: str, found: list[tuple[str, str]]) -> None:
    assert [(each.kind, each.value) for each in details(text)] == found


@given(st.one_of(st.text(max_size=100), WRITTEN))
def test_details_lie_in_their_text(text: str) -> None:
    for each in details(text):
        assert 0 <= each.start < each.end <= len(text)
    assert isinstance(with_plain_numbers(text), str)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It isn't open and never was", 2),
        ("It is not only open", 0),
        ("No. 5 is open", 0),
        ("他没有来", 1),
        ("这非常不同，不仅如此", 0),
        ("他不来", 1),
    ],
)
def test_denials_are_counted_and_words_like_them_are_not(text: str, count: int) -> None:
    assert denials(text) == count
