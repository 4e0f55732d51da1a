"""Search by words: what is found, in which order, in both languages."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pagoda.logic.retrieval.lexical import LexicalIndex, best, words

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
