"""From tokens to text as it is written: whole characters only, with the tokens that each piece is made of."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from pagoda.core.types import Delta, TokenLogprob
from pagoda.model.engines.stop import StopCutter
from pagoda.model.engines.transformers_child.job import Written

BytesOf = Callable[[int], bytes]


class Writer:
    """The text of one choice. A character of several tokens appears with its last; a stop sequence ends it."""

    def __init__(self, index: int, stops: tuple[str, ...], bytes_of: BytesOf) -> None:
        self._index = index
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cutter = StopCutter(stops) if stops else None

    @property
    def stop(self) -> str | None:
        """The stop sequence that was met."""
        return self._cutter.stop if self._cutter is not None else None

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence was met."""
        return self._cutter is not None and self._cutter.stopped

    def write(self, token: Written) -> Delta | None:
        """What of the answer is certain after this token."""
        raw = self._bytes_of(token.id)
        text = self._decoder.decode(raw)
        logprobs = (self._entry(token, raw, text),) if token.logprob is not None else ()
        return self._pass(Delta(self._index, text, logprobs))

    def end(self) -> Delta | None:
        """What was held back, once the answer is over by itself."""
        rest = self._pass(Delta(self._index, self._decoder.decode(b"", final=True)))
        if self._cutter is None or self._cutter.stopped:
            return rest
        held = self._cutter.flush(self._index)
        if rest is None or held is None:
            return rest or held
        return Delta(self._index, rest.text + held.text, rest.logprobs + held.logprobs)

    def _pass(self, delta: Delta) -> Delta | None:
        if self._cutter is not None:
            return self._cutter.feed(delta)
        return delta if delta.text or delta.logprobs else None

    def _entry(self, token: Written, raw: bytes, text: str) -> TokenLogprob:
        rivals = tuple(entry(rival.id, rival.logprob, self._bytes_of) for rival in token.top)
        return TokenLogprob(text, token.logprob or 0.0, tuple(raw), rivals, token.id)


def entry(id: int, logprob: float, bytes_of: BytesOf) -> TokenLogprob:
    """A token by itself."""
    raw = bytes_of(id)
    return TokenLogprob(raw.decode("utf-8", "replace"), logprob, tuple(raw), (), id)
