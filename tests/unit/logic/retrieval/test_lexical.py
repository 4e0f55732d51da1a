"""Search by words: what is found, in which order, in both languages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.retrieval.lexical import LexicalIndex, best, nth_best, words

TEXTS = ("The cat sat on the mat.", "Dogs and cats sleep.", "量子计算机使用量子比特。", "经典计算机使用比特。", "")


def found(query: str, limit: int = 5) -> list[int]:
    return best(LexicalIndex(TEXTS).scores(query), limit, above=0)


def test_words_of_two_chinese_characters_are_found() -> None:
    assert words("量子 Cats, glass") == ["量", "子", "量子", "cat", "glass"]
    assert found("量子") == [2]
    assert found("经典") == [3]
    assert found("比特")[:2] == [3, 2], "the shorter text first"


def test_plurals_are_one_word_and_strangers_find_nothing() -> None:
    assert found("cat") == [1, 0]
    assert found("cat", 1) == [1]
    assert found("submarine ？") == []
    assert found("") == []


def test_scores_are_those_of_bm25() -> None:
    index = LexicalIndex(("a b", "b b c d"))
    rarity = math.log(1 + (2 - 2 + 0.5) / (2 + 0.5))
    expected = [
        rarity * 1 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 3)),
        rarity * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3)),
    ]
    assert index.scores("b b").tolist() == pytest.approx(expected)


def test_nothing_is_found_in_nothing() -> None:
    assert best(LexicalIndex(()).scores("word"), 5) == []


def test_the_best_come_first_and_equal_ones_in_their_order() -> None:
    assert best(np.asarray([1, 3, 2, 3, 0], np.float32), 3) == [1, 3, 2]
    assert best(np.asarray([1, 1, 1], np.float32), 2) == [0, 1]


@given(st.lists(st.sampled_from((0.0, 0.5, 1.0, 7.0, -np.inf)), min_size=1, max_size=9), st.data())
def test_a_place_among_many_equal_scores_is_that_of_a_sorted_list(drawn: list[float], data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores = rng.choice(np.asarray(drawn, np.float32), data.draw(st.sampled_from((9, 63, 64, 200, 700))))
    number = data.draw(st.integers(1, min(len(scores), 12)))
    assert nth_best(scores, number) == sorted(scores, reverse=True)[number - 1]
    assert best(scores, number) == list(np.argsort(-scores, kind="stable")[: int((scores > -np.inf).sum())][:number])


def slowly(texts: Sequence[str], query: str) -> list[float]:
    """BM25 as it is written, word by word."""
    counts = [Counter(words(text)) for text in texts]
    lengths = [count.total() for count in counts]
    mean = max(sum(lengths) / len(lengths), 1.0)
    total = [0.0] * len(texts)
    for word in set(words(query)):
        holding = sum(word in count for count in counts)
        rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for place, count in enumerate(counts):
            stretch = 1.2 * (0.25 + 0.75 * lengths[place] / mean)
            total[place] += rarity * count[word] * 2.2 / (count[word] + stretch)
    return total


written = st.text(st.sampled_from("abs  S_9ßİéさカ・量子机机𠀀,。\n\ud800"), max_size=20)


@given(texts=st.lists(written, min_size=1, max_size=8), query=written)
def test_the_index_says_what_counting_word_by_word_does(texts: list[str], query: str) -> None:
    assert LexicalIndex(texts).scores(query).tolist() == pytest.approx(slowly(texts, query), rel=1e-5)


def test_more_texts_than_are_counted_at_once_keep_their_places() -> None:
    texts = [f"part{number} 第{number % 7}句" for number in range(9000)]
    index = LexicalIndex(iter(texts))
    for number in (0, 4095, 4096, 8999):
        assert best(index.scores(f"part{number}"), 5, above=0) == [number]
    assert np.flatnonzero(index.scores("句")).tolist() == list(range(9000))
