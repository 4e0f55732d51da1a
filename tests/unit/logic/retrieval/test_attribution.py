"""Sentences that cite nothing are given the passage that bears them out, also while the answer still streams in."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.retrieval.attribution import Attribution
from pagoda.logic.retrieval.citing import Citations, check_citations
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.texts.citations import CITATION
from pagoda.logic.trust.grounds import JudgedGrounds


class Known:
    """Grounds for certain sentences, or for all."""

    def __init__(self, numbers: Mapping[str, int] | None = None) -> None:
        self._numbers = numbers
        self.asked: list[str] = []

    async def find(self, sentence: str) -> int | None:
        self.asked.append(sentence)
        return 1 if self._numbers is None else self._numbers.get(sentence)


async def attributed(text: str, known: Known, cuts: list[int] | None = None) -> tuple[str, Attribution]:
    """A text that comes in pieces, through both readers as an answer does."""
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts or [])})
    reader, attribution = Citations(2), Attribution(known)
    told = [await attribution.read(reader.read(text[begin:end])) for begin, end in pairwise(places)]
    told += await attribution.read(reader.end()), await attribution.end()
    return "".join(told), attribution


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is far. It is round.", "It is far. [1] It is round. [2]"),
        ("It is far [2]. It is round.", "It is far [2]. It is round. [2]"),
        ("It is far. [2] It is round. [1]", "It is far. [2] It is round. [1]"),
        ("It is near. It is far.", "It is near. It is far. [1]"),
        ("月亮很远。月亮是圆的。", "月亮很远。[1]月亮是圆的。[2]"),
        ("- It is far.\n- It is round.", "- It is far. [1]\n- It is round. [2]"),
        ("It is far.\n\nIt is round.", "It is far. [1]\n\nIt is round. [2]"),
        ("# It is far.\n| It is round. |\n| It is far. |", "# It is far.\n| It is round. |\n| It is far. |"),
        (
            "```\nIt is far.\n\nIt is round.\n```\n\nIt is far.",
            "```\nIt is far.\n\nIt is round.\n```\n\nIt is far. [1]",
        ),
        ("", ""),
    ],
)
async def test_a_sentence_that_cites_nothing_is_given_its_passage(text: str, expected: str) -> None:
    known = {"It is far.": 1, "It is round.": 2, "月亮很远。": 1, "月亮是圆的。": 2}
    known |= {f"- {sentence}": number for sentence, number in known.items()}
    told, attribution = await attributed(text, Known(known))
    assert told == expected
    assert attribution.added == len(CITATION.findall(expected)) - len(CITATION.findall(text))
    assert set(attribution.numbers) <= {1, 2}


@given(
    st.text("aB 12.。!?[]\n\t-#|`”)", max_size=60),
    st.lists(st.integers(0, 60), max_size=8),
)
async def test_pieces_give_the_same_as_the_whole_and_nothing_else_is_changed(text: str, cuts: list[int]) -> None:
    whole, attribution = await attributed(text, Known())
    told, _ = await attributed(text, Known(), cuts)
    assert told == whole
    checked = check_citations(text, 2)[0]
    assert len(CITATION.findall(whole)) == len(CITATION.findall(checked)) + attribution.added
    assert (await attributed(text, Known({})))[0] == checked


def passage(text: str) -> Passage:
    return Passage(document="d", source="s", title="t", heading="", start=0, end=len(text), text=text)


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("The museum was founded by Maria Keller in 1911.", 2),
        ("The museum was founded by Maria Keller in 1921.", None),
        ("The lighthouse on the island is 41 metres tall.", 1),
        ("博物馆由玛丽亚·凯勒于1911年创立。", 3),
        ("Who founded the museum?", None),
        ("The documents do not say.", None),
        ("The museum is:", None),
        ("In 1911.", 2),
        ("It rains often in the mountains of the north.", None),
        ("", None),
    ],
)
async def test_a_passage_bears_a_sentence_out_by_itself(sentence: str, number: int | None) -> None:
    passages = [
        passage("The lighthouse on the island is 41 metres tall and was painted red."),
        passage("Maria Keller founded the museum in 1911. It opened its doors two years later."),
        passage("博物馆由玛丽亚·凯勒于1911年创立，两年后开放。"),
    ]
    assert await JudgedGrounds(passages, "Who founded the museum?").find(sentence) == number
    assert await JudgedGrounds([], "Who founded the museum?").find(sentence) is None


async def test_what_two_passages_bear_out_together_is_not_cited() -> None:
    passages = [
        passage("The museum was founded by Maria Keller."),
        passage("The harbour was closed in 1911 by a storm."),
    ]
    sentence = "The museum was founded by Maria Keller in 1911 after the harbour was closed by a storm."
    assert await JudgedGrounds(passages, "").find(sentence) is None
