"""Sentences of texts, which answers quote."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.retrieval.quoting import letter_spans


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("It costs 3.50. Really? Yes!", ["It costs 3.50.", "Really?", "Yes!"]),
        ("月亮很远。“真的？”是的！", ["月亮很远。", "“真的？”", "是的！"]),
        ("# Head\n\nFirst line\ngoes on.\n- one\n- two\n", ["# Head", "First line\ngoes on.", "- one", "- two"]),
        ("Dr. Li came in the U.S. Army. She left.", ["Dr. Li came in the U.S. Army.", "She left."]),
        ("Do this:\n1. Open it.\n2. Close it.", ["Do this:", "1. Open it.", "2. Close it."]),
        ("It is ready.月亮很远；很圆。", ["It is ready.", "月亮很远；很圆。"]),
        ("  no end  ", ["no end"]),
        ("...\n\n!", []),
    ],
)
def test_a_text_is_its_sentences(text: str, told: list[str]) -> None:
    assert [text[each.start : each.end] for each in letter_spans(text)] == told


@pytest.mark.parametrize("unit", ["Mr. ", "1.", ".", "A.", "“", "?”", "\n", "\n1", " ", "\n\n-", "…"])
def test_no_text_takes_longer_than_its_length(unit: str) -> None:
    assert letter_spans(f"a{unit * (1_000_000 // len(unit))}a")


@given(st.text("ab. 。！\n-|1", max_size=80))
def test_every_letter_is_in_exactly_one(text: str) -> None:
    spans = letter_spans(text)
    assert all(before.end <= after.start for before, after in pairwise(spans))
    held = "".join(text[each.start : each.end] for each in spans)
    assert [letter for letter in text if letter.isalnum()] == [letter for letter in held if letter.isalnum()]
    assert all(text[each.start : each.end].strip() == text[each.start : each.end] for each in spans)
