"""Splitting: exact, complete, within its limit, the same each time; cut where a reader would cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.logic.retrieval.splitting import Splitter

TEXTS = st.one_of(
    st.text(max_size=400),
    st.lists(
        st.sampled_from(
            ["a", "bc ", "\n", "\n\n", "# h\n", "```\n", "。", "！", "，", ". ", "量子", "\r\n", "😀", "\u0301"]
        ),
        max_size=150,
    ).map("".join),
)


def words_and_letters(text: str) -> int:
    """A tokenizer that no length of text foretells: words, and four for each Chinese character."""
    return sum(4 if "\u4e00" <= token <= "\u9fff" else 1 for token in re.findall(r"[\u4e00-\u9fff]|\w+|[^\w\s]", text))


def rising_and_falling(text: str) -> int:
    """A measure by which a shorter text may be longer."""
    return len(text) + (3 if len(text) % 2 else 0)


@given(
    TEXTS,
    st.integers(4, 60),
    st.integers(0, 30),
    st.sampled_from([None, words_and_letters, rising_and_falling]),
)
def test_pieces_are_exact_complete_within_the_limit_and_the_same_again(
    text: str, limit: int, overlap: int, measure: object
) -> None:
    splitter = Splitter(limit=limit, overlap=min(overlap, limit // 2), measure=measure)  # type: ignore[arg-type]
    spans = splitter.split(text)
    covered = 0
    for before, span in zip([None, *spans], spans, strict=False):
        assert 0 <= span.start <= covered < span.end <= len(text)
        assert before is None or span.start > before.start
        assert (len if splitter.measure is None else splitter.measure)(text[span.start : span.end]) <= limit
        covered = span.end
    assert covered == len(text)
    assert splitter.split(text) == spans


def pieces(text: str, limit: int, overlap: int = 0) -> list[str]:
    return [text[span.start : span.end] for span in Splitter(limit=limit, overlap=overlap).split(text)]


def test_it_cuts_at_the_strongest_boundary() -> None:
    assert pieces("# A\n\nfirst words here\n\n# B\n\nsecond words", 30) == [
        "# A\n\nfirst words here\n\n",
        "# B\n\nsecond words",
    ]
    assert pieces("one line\nand a paragraph.\n\nanother one, with words", 40) == [
        "one line\nand a paragraph.\n\n",
        "another one, with words",
    ]
    assert pieces("One is here. Two is there. Three", 28) == ["One is here. Two is there. ", "Three"]
    assert pieces("第一句话。第二句话！第三句话很长很长", 14) == ["第一句话。第二句话！", "第三句话很长很长"]
    assert pieces("aaaaaaaaaa", 4) == ["aaaa", "aaaa", "aa"]


def test_a_code_block_stays_whole_where_it_can() -> None:
    text = "Some words before.\n\n```sh\na\n\n# b\n\nc\n```\n\nafter it"
    assert pieces(text, 45)[0] == "Some words before.\n\n```sh\na\n\n# b\n\nc\n```\n\n"
    assert pieces(text, 36)[0] == "Some words before.\n\n"


def test_pieces_overlap_at_words() -> None:
    assert pieces("one two three four five six", 14, 6) == ["one two three ", "three four ", "five six"]


@pytest.mark.parametrize(("limit", "overlap"), [(0, 0), (10, 6), (10, -1)])
def test_impossible_sizes_are_refused(limit: int, overlap: int) -> None:
    with pytest.raises(InvalidRequest, match="not possible"):
        Splitter(limit=limit, overlap=overlap)


def test_a_character_beyond_the_limit_is_named() -> None:
    with pytest.raises(InvalidRequest, match="'量' alone measures more"):
        Splitter(limit=3, overlap=0, measure=words_and_letters).split("a 量")
