"""Questions over several documents: which of a file are asked, how answers compare, how their support is counted."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.multihop import Item, figures, instructions_for, read_set, score
from pagoda.logic.tools.searching import Passage
from tests.public_data import public_data

FIRST, SECOND = Passage("Oakbridge", "Oakbridge lies on the Wend."), Passage("Wend", "The Wend is 6,924 m long.")
ITEM = Item("q", "How long is the river at Oakbridge?", ("6,924 m", "The long one"), frozenset({FIRST, SECOND}))


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "set.json"
    path.write_bytes(orjson.dumps({"version": "1.0", "data": rows}))
    return path


def question(name: str, *titles: str) -> dict[str, object]:
    context = [[title, f"about {title} "] for title in titles]
    return {"id": name, "question": f"What of {name}?", "answers": ["that"], "context": context}


def test_questions_over_several_titles_are_asked_and_all_passages_searched(tmp_path: Path) -> None:
    rows = (question("one", "a", "a"), question("two", "a", "b"), question("three", "c"))
    items, passages = read_set(written(tmp_path, *rows))
    assert [item.id for item in items] == ["two"]
    assert items[0].support == {Passage("a", "about a"), Passage("b", "about b")}
    assert [passage.source for passage in passages] == ["a", "b", "c"]


def test_the_published_file_holds_559_such_questions() -> None:
    items, passages = read_set(public_data("rag") / "beerqa.json")
    assert len(items) == 559
    assert all(item.support <= set(passages) and item.answers for item in items)


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_set(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("text")
    with pytest.raises(InvalidRequest, match="not JSON"):
        read_set(tmp_path / "text.json")
    with pytest.raises(InvalidRequest, match="form of BeerQA"):
        read_set(written(tmp_path, {"question": "?", "answers": ["!"]}))
    with pytest.raises(InvalidRequest, match="no question"):
        read_set(written(tmp_path, question("one", "a")))


@pytest.mark.parametrize(
    ("answer", "exact", "contains"),
    [
        ("6,924 m.", True, True),
        ("long one", True, True),
        ("It is 6,924 m long.", False, True),
        ("It is 16,924 m long.", False, False),
        ("It is 6,924 miles long.", False, False),
        ("", False, False),
    ],
)
def test_answers_are_compared_without_articles_marks_and_capitals(answer: str, exact: bool, contains: bool) -> None:
    told = score(ITEM, answer, 1, ())
    assert (told["exact"], told["contains"]) == (exact, contains)


def test_chinese_answers_are_compared_by_their_characters() -> None:
    item = Item("q", "哪条河？", ("温德河",), frozenset({FIRST}))
    assert score(item, "是温德河。", 1, ())["contains"]
    assert not score(item, "是温河。", 1, ())["contains"]
    assert instructions_for(item) != instructions_for(ITEM)


def test_support_that_was_found_counts_once() -> None:
    once = score(ITEM, "", 1, (FIRST, FIRST, Passage("Else", "else")))
    assert (once["recall"], once["complete"], once["twice"]) == (0.5, False, False)
    both = score(ITEM, "", 2, (SECOND, FIRST))
    assert (both["recall"], both["complete"], both["twice"]) == (1.0, True, True)
    rows = [{"strategy": "react", "limited": None, "error": None, **told} for told in (once, both)]
    told = figures(rows)["react"]
    assert (told["items"], told["twice"], told["complete"], told["recall"], told["searches"]) == (2, 1, 1, 0.75, 1.5)
    assert told["shares"]["twice"]["value"] == 0.5
