"""Text split into pieces that overlap a little: at headings, paragraphs, lines, sentences, words, in that order.

Every piece is exactly ``text[start:end]``, together they cover the text, none passes the limit, and the same text is
always split alike. A cut falls at the strongest boundary of the last three quarters of the room, and into a Markdown
code block only if that leaves no other. Sentences end in Chinese and Japanese as in English.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pagoda.core.errors import InvalidRequest
from pagoda.logic.retrieval.markup import Fences

Measure = Callable[[str], int]
"""How long a text is, in the unit of the limit; for example its tokens."""

_STRUCTURE: tuple[tuple[tuple[str, ...], int], ...] = ((("\n#",), 1), (("\n\n", "\n\r\n"), 0))
"""Ends of sections and paragraphs, each with how many of its characters belong to what follows."""
_SENTENCE_ENDS = ("。", "！", "？", "…", "；", ". ", "! ", "? ", "; ")
_CLAUSE_ENDS = ("，", "、", "：", ", ", ": ")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text, in characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitter:
    """How texts are split: ``limit`` and ``overlap`` in characters, or in the unit of ``measure``."""

    limit: int = 480
    overlap: int = 60
    measure: Measure | None = None

    def __post_init__(self) -> None:
        if self.limit < 1 or not 0 <= self.overlap <= self.limit // 2:
            raise InvalidRequest(
                f"A piece of {self.limit} with an overlap of {self.overlap} is not possible: the limit is 1 at least, "
                "and the overlap at most half of it."
            )

    def split(self, text: str) -> list[Span]:
        """The pieces in order. Raises ``InvalidRequest`` where one character alone measures more than the limit."""
        return list(self._spans(text))

    def _spans(self, text: str) -> Iterator[Span]:
        fences, start, covered = Fences(text), 0, 0
        while covered < len(text):
            room = self._room(text, start)
            if room <= covered and start < covered:  # what overlaps leaves no room for anything new
                start = covered
                continue
            window = max(covered, start + (room - start) // 4), room
            end = room if room == len(text) else _boundary(text, window, fences)
            end = self._fitting(text, start, end)
            if end <= covered:
                start = covered
                continue
            yield Span(start, end)
            covered = end
            start = _resumption(text, start, end, (end - start) * self.overlap // self.limit)

    def _room(self, text: str, start: int) -> int:
        """How far a piece may reach that starts here."""
        if self.measure is None:
            return min(len(text), start + self.limit)
        size = min(len(text) - start, self.limit * 8)  # a token rarely has more characters
        while size > 1 and (measured := self.measure(text[start : start + size])) > self.limit:
            size = max(1, min(size - 1, size * self.limit // measured))
        return start + size

    def _fitting(self, text: str, start: int, end: int) -> int:
        """The end, moved back until the piece fits: a shorter text may measure more."""
        while self.measure is not None and self.measure(text[start:end]) > self.limit:
            if end - start == 1:
                raise InvalidRequest(f"The character {text[start]!r} alone measures more than the limit {self.limit}.")
            end = start + max(1, (end - start) * 3 // 4)
        return end


def _boundary(text: str, window: tuple[int, int], fences: Fences) -> int:
    """The best place to cut in a window: after its first character, at its last at most."""
    for ends, before in _STRUCTURE:
        if (found := _last(text, window, ends, before, fences)) is not None:
            return found
    for ends in (("\n",), _SENTENCE_ENDS, _CLAUSE_ENDS, (" ", "\t", "\u3000")):
        if (found := _last(text, window, ends, 0, None)) is not None:
            return found
    return window[1]


def _last(text: str, window: tuple[int, int], ends: tuple[str, ...], before: int, fences: Fences | None) -> int | None:
    """The last place after one of ``ends`` (``before``: characters of it that belong to what follows)."""
    low, best = window[0], -1
    for mark in ends:
        high = window[1] + before
        while (found := text.rfind(mark, low, high)) >= 0:
            place = found + len(mark) - before
            if low < place <= window[1] and (fences is None or not fences.hold(place)):
                best = max(best, place)
                break
            high = found + len(mark) - 1
    return best if best > low else None


def _resumption(text: str, start: int, end: int, overlap: int) -> int:
    """Where the next piece starts: at a sentence or word of the last ``overlap`` characters."""
    low = max(start + 1, end - overlap)
    if low >= end or text[end - 1 : end + 1] == "\n#":  # a section does not begin with the end of the one before
        return end
    for marks in (("\n", *_SENTENCE_ENDS), (*_CLAUSE_ENDS, " ", "\u3000")):
        found = [text.find(mark, low - 1, end - 1) + len(mark) for mark in marks]
        places = [place for place, mark in zip(found, marks, strict=True) if len(mark) <= place < end]
        if places:
            return min(places)
    around = text[low - 1 : low + 1]
    return end if around.isascii() and around.isalnum() else low  # half a word helps nobody
