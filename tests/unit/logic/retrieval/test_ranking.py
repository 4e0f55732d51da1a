"""Rankings become one: neither meaning nor words alone decide, and likeness can cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pagoda.logic.retrieval.ranking import diversify, rank


def floats(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32)


def test_what_stands_out_decides() -> None:
    ordinary = [0.80 + 0.001 * (number % 7) for number in range(50)]
    words = floats(*([1.0] * 51), 9.0)
    far_ahead = rank(floats(*ordinary, 0.90, 0.80), words, 1)
    assert [place for place, _ in far_ahead] == [50], "a passage that is nearest by far is found without the words"
    close = rank(floats(*ordinary, 0.807, 0.806), words, 1)
    assert [place for place, _ in close] == [51], "where many are as near, the words decide"


def test_words_that_a_crowd_has_as_well_decide_nothing() -> None:
    meaning = floats(0.5, *([0.4] * 300))
    shared = floats(0.0, *([8.0] * 150), *([0.0] * 150))
    assert rank(meaning, shared, 301) == rank(meaning, shared * 0, 301), "150 passages have these words"
    shared[300] = 9.0
    scores = dict(rank(meaning, shared, 301))
    assert scores[300] - scores[299] == pytest.approx(1 / 9), "one has more of them"
    few = floats(*([8.0] * 99), *([0.0] * 201), 0.0)
    assert [place for place, _ in rank(meaning * 0, few, 99)] == list(range(99)), "fewer are no crowd"


def test_without_words_in_common_meaning_decides_and_the_other_way_round() -> None:
    assert [place for place, _ in rank(floats(0.1, 0.3, 0.2), floats(0, 0, 0), 3)] == [1, 2, 0]
    assert [place for place, _ in rank(floats(0.5, 0.5, 0.5), floats(1, 3, 2), 3)] == [1, 2, 0]
    assert rank(None, floats(0, 2, 0), 3) == [(1, 2.0)]
    with pytest.raises(ValueError, match="nothing to rank"):
        rank(None, None, 1)


@given(st.data())
def test_only_what_is_allowed_is_found_best_first(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 30))
    numbers = st.floats(0, 1, width=32)
    cosines, scores = (data.draw(arrays(np.float32, size, elements=numbers)) for _ in range(2))
    allowed = data.draw(arrays(np.bool_, size))
    limit = data.draw(st.integers(1, 40))
    if not allowed.any():
        return
    for similarities, words in ((cosines, scores), (cosines, None), (None, scores)):
        ranked = rank(similarities, words, limit, allowed)
        places = [place for place, _ in ranked]
        assert len(set(places)) == len(places) <= limit
        assert all(allowed[place] for place in places)
        assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
        if similarities is not None:
            assert len(places) == min(limit, int(allowed.sum()))


def test_what_resembles_a_better_one_falls_behind() -> None:
    vectors = np.asarray([[1, 0], [1, 0.01], [0, 1]], np.float32)
    ranked = [(0, 1.0), (1, 0.99), (2, 0.5)]
    assert [place for place, _ in diversify(ranked, vectors, 0.5, 2)] == [0, 2]
    assert [place for place, _ in diversify(ranked, vectors, 0.0, 3)] == [0, 1, 2]
    assert diversify([], vectors, 0.5, 2) == []
