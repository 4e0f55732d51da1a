"""Cutting an answer at its stop sequences, for engines that lose log-probabilities when they do it themselves."""

from __future__ import annotations

from pagoda.core.types import Delta, TokenLogprob


class StopCutter:
    """Holds back text that may be the beginning of a stop sequence; tokens travel with the text they belong to."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self._tokens: list[tuple[int, TokenLogprob]] = []  # (place in the held text where the token begins, token)
        self.stopped = False
        self.stop: str | None = None
        """The sequence that was met."""

    def feed(self, delta: Delta) -> Delta | None:
        """What of the answer is now certain; after it, ``stopped`` tells whether a stop sequence was met."""
        if self.stopped:
            return None
        place = len(self._held)
        for token in delta.logprobs:
            self._tokens.append((place, token))
            place += len(token.token)
        self._held += delta.text
        met = min(((at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0), default=None)
        if met is not None:
            self.stopped, self.stop = True, met[1]
            return self._release(met[0], delta.index)
        return self._release(len(self._held) - self._doubtful(), delta.index)

    def flush(self, index: int) -> Delta | None:
        """The held text, once the answer has ended by itself."""
        return self._release(len(self._held) + 1, index)

    def _doubtful(self) -> int:
        """Length of the longest end of the held text with which a stop sequence begins."""
        longest = min(max(map(len, self._stops)) - 1, len(self._held))
        for length in range(longest, 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0

    def _release(self, length: int, index: int) -> Delta | None:
        text, self._held = self._held[:length], self._held[length:]
        tokens = tuple(token for at, token in self._tokens if at < length)
        self._tokens = [(at - length, token) for at, token in self._tokens if at >= length]
        return Delta(index, text, tokens) if text or tokens else None
