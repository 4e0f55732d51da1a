"""Exams of a collection: which passage is right, what a file of questions may say, and what comes of it in figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.logic.retrieval.answering import Citation, SourcedAnswer
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.retrieval.exam import ExamQuestion, Place, read_exam
from pagoda.logic.retrieval.marking import Mark, answer_figures, mark, search_figures

SOURCES = ("library/handbook/keys.md", "library/handbook/图书馆.txt", "library/old/keys.md")


def passage(source: str, text: str, start: int = 0) -> Passage:
    return Passage(document="doc", source=source, title="", heading="", start=start, end=start + len(text), text=text)


def read(folder: Path, *rows: dict[str, Any]) -> list[ExamQuestion]:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return read_exam(str(path), SOURCES)


def test_a_file_says_what_answers_each_question(tmp_path: Path) -> None:
    first, second, third, fourth = read(
        tmp_path,
        {"id": "k", "question": "Who?", "document": "handbook/keys.md", "answers": ["the porter", "a porter"]},
        {"question": "几点开门？", "document": ["图书馆.txt"], "text": "九点开门"},
        {"question": "Where?", "places": [{"document": "./old/keys.md", "start": 3, "end": 9}]},
        {"question": "What colour?", "answerable": False},
    )
    assert first == ExamQuestion(id="k", text="Who?", sources=(SOURCES[0],), answers=("the porter", "a porter"))
    assert second == ExamQuestion(id="2", text="几点开门？", sources=(SOURCES[1],), texts=("九点开门",))
    assert third.places == (Place(source=SOURCES[2], start=3, end=9),)
    assert (fourth.answerable, third.answerable) == (False, True)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "Who?"}, "name a document, text, places or answers"),
        ({"question": " ", "answers": "x"}, "it needs a question"),
        ({"document": "keys.md"}, "it needs a question"),
        ({"question": "Who?", "document": "keys.md"}, "'keys.md' names 2 documents"),
        ({"question": "Who?", "document": "eys.md"}, "'eys.md' names no document"),
        ({"question": "Who?", "answer": "x"}, "'answer' is not known"),
        ({"question": "Who?", "answers": [""]}, "'answers' is a text, or a list of texts that say something"),
        ({"question": "Who?", "text": 3}, "'text' is a text"),
        ({"question": "Who?", "places": [{"document": "old/keys.md", "start": 3, "end": 3}]}, "a place has a document"),
        ({"question": "Who?", "places": {"document": "old/keys.md"}}, "a place has a document"),
        ({"question": "Who?", "places": 3}, "a place has a document"),
        ({"question": "Who?", "answerable": False, "answers": "x"}, "what is not answerable has no"),
        ({"question": "Who?", "answerable": "no"}, "'answerable' is true or false"),
    ],
)
def test_what_cannot_be_a_question_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match="question 1: ") as raised:
        read(tmp_path, row)
    assert said in raised.value.message


def test_the_rank_is_of_the_first_right_passage_or_document() -> None:
    found = [
        passage("a", "Keys open doors."),
        passage("a", "Nothing.", 50),
        passage("b", "The  PORTER\nknows.", 10),
        passage("b", "More.", 90),
    ]
    by_document = ExamQuestion(id="1", text="?", sources=("b",), answers=("nothing of this",))
    assert by_document.rank(found) == 2, "documents are counted once"
    assert ExamQuestion(id="1", text="?", texts=("the porter knows",)).rank(found) == 3
    assert ExamQuestion(id="1", text="?", answers=("porter",)).rank(found) == 3
    assert ExamQuestion(id="1", text="?", texts=("keys",), sources=("b",)).rank(found) == 0, "in its document alone"
    touched = ExamQuestion(id="1", text="?", places=(Place(source="b", start=0, end=11),))
    beside = ExamQuestion(id="1", text="?", places=(Place(source="b", start=0, end=10),))
    assert (touched.rank(found), beside.rank(found)) == (3, 0)
    assert by_document.rank([]) == 0


def answer(text: str, *passages: Passage, outcome: Any = "answered") -> SourcedAnswer:
    citations = tuple(Citation(number=number, passage=each) for number, each in enumerate(passages, 1))
    return SourcedAnswer(outcome=outcome, text=text, citations=citations, query="?", passages=())


def test_an_answer_is_marked_by_what_it_says_and_cites() -> None:
    question = ExamQuestion(id="1", text="?", answers=("The Porter", "九点"))
    both = answer("the porter [1][2].", passage("a", "Ask the porter."), passage("a", "Keys."))
    assert mark(question, both) == Mark(answerable=True, answered=True, exact=True, contains=True, cited=2, holding=1)
    longer = mark(question, answer("图书馆九点开门 [1]。", passage("a", "开门")))
    assert (longer.exact, longer.contains, longer.holding) == (False, True, 0)
    withheld = mark(question, answer("The documents do not say: the porter.", outcome="not-in-documents"))
    assert withheld == Mark(answerable=True, answered=False, exact=False, contains=False)
    documents = ExamQuestion(id="1", text="?", sources=("a",))
    assert mark(documents, both) == Mark(answerable=True, answered=True, cited=2), "nothing can be told of the rest"
    nothing = ExamQuestion(id="1", text="?", answerable=False)
    assert mark(nothing, both) == Mark(answerable=False, answered=True)


def test_the_figures_of_a_search() -> None:
    figures = search_figures([{"fused": 1, "dense": 0}, {"fused": 2, "dense": 6}, {"fused": 1, "dense": 1}] * 10)
    fused, dense = figures["fused"], figures["dense"]
    assert (fused["recall_at_1"]["value"], fused["recall_at_5"]["value"]) == (pytest.approx(2 / 3, abs=1e-6), 1.0)
    assert (dense["recall_at_1"]["value"], dense["recall_at_5"]["value"]) == (pytest.approx(1 / 3, abs=1e-6),) * 2
    assert fused["mrr"]["value"] == pytest.approx(2.5 / 3, abs=1e-6)
    assert dense["mrr"]["value"] == pytest.approx((1 + 1 / 6) / 3, abs=1e-6)
    for told in (*fused.values(), *dense.values()):
        assert told["low"] <= told["value"] <= told["high"]
        assert told["of"] == 30
    assert search_figures([]) == {}


def test_the_figures_of_answers_count_both_errors() -> None:
    marks = [
        Mark(answerable=True, answered=True, exact=True, contains=True, cited=3, holding=3),
        Mark(answerable=True, answered=True, exact=False, contains=True, cited=1, holding=0),
        Mark(answerable=True, answered=True, exact=False, contains=False),
        Mark(answerable=True, answered=False, exact=False, contains=False),
        Mark(answerable=False, answered=False),
        Mark(answerable=False, answered=True, cited=1),
    ]
    told: dict[str, Any] = answer_figures(marks)
    assert {name: (share["value"], share["of"]) for name, share in told.items()} == {
        "exact": (0.25, 4),
        "contains": (0.5, 4),
        "cites_nothing": (pytest.approx(1 / 3, abs=1e-6), 3),
        "spans_holding": (0.75, 4),
        "withheld_though_told": (0.25, 4),
        "answered_though_not_told": (0.5, 2),
        "abstained_where_not_told": (0.5, 2),
    }
    assert set(answer_figures([]).values()) == {None}, "where nothing was asked, nothing is said"


@given(st.lists(st.integers(0, 100), min_size=1, max_size=40))
def test_recall_and_reciprocal_rank_agree(ranks: list[int]) -> None:
    told: Any = search_figures([{"fused": rank} for rank in ranks])["fused"]
    one, five, reciprocal = (told[name]["value"] for name in ("recall_at_1", "recall_at_5", "mrr"))
    assert one <= reciprocal + 1e-5
    assert one <= five <= 1
    assert reciprocal <= one + (1 - one) / 2 + 1e-5
    assert (reciprocal == 0) == (not any(ranks))
