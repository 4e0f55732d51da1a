"""Cutting at stop sequences: however the text is chopped up, the result is that of cutting the whole."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.types import Delta, TokenLogprob
from pagoda.model.engines.stop import StopCutter

letters = st.text(alphabet="ab界 ", max_size=30)
stops = st.lists(st.text(alphabet="ab界 ", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@given(letters, stops, st.lists(st.integers(0, 40)))
def test_chopping_does_not_matter(text: str, ends: tuple[str, ...], cuts: list[int]) -> None:
    cutter = StopCutter(ends)
    shown = ""
    tokens: list[str] = []
    given_tokens = pieces(text, cuts)
    for piece in given_tokens:
        certain = cutter.feed(Delta(0, piece, (TokenLogprob(piece, -1.0),)))
        if certain is not None:
            shown += certain.text
            tokens += [token.token for token in certain.logprobs]
        if cutter.stopped:
            break
        assert not any(end in shown for end in ends), "a stop sequence was shown"
    if not cutter.stopped and (rest := cutter.flush(0)) is not None:
        shown += rest.text
        tokens += [token.token for token in rest.logprobs]
    first = min((at for end in ends if (at := text.find(end)) >= 0), default=None)
    assert cutter.stopped == (first is not None)
    if first is None:
        assert shown == text
        assert tokens == given_tokens
    else:
        # One that ends sooner may begin later than one that is still open: the earliest end wins, as in a stream.
        assert text.startswith(shown)
        assert any(text.startswith(end, len(shown)) for end in ends)
        assert "".join(tokens).startswith(shown) or shown.startswith("".join(tokens))
        assert tokens == given_tokens[: len(tokens)]


@given(letters, stops)
def test_text_that_cannot_begin_a_stop_is_shown_at_once(text: str, ends: tuple[str, ...]) -> None:
    cutter = StopCutter(ends)
    shown = ""
    for letter in text:
        certain = cutter.feed(Delta(0, letter))
        shown += certain.text if certain else ""
        if cutter.stopped:
            return
    held = text[len(shown) :]
    assert held == "" or any(end.startswith(held) for end in ends)
