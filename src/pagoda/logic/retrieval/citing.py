"""Citations in an answer: each ``[n]`` stands for a passage that was shown, also while the answer still streams in.

Those of passages that do not exist are taken out and counted. Not here: whether the passage supports the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.texts.citations import BEGUN, CITATION, ranges, without_citations

_SPACED = re.compile(rf"(?:(?<![ \t])[ \t]++)?{CITATION.pattern}")
_UNFINISHED = re.compile(rf"(?<!\s)\s*+(?:{BEGUN.pattern})?$")


class Citations:
    """Reads an answer piece by piece; what might become a citation is held back until it is one or is none.

    Numbers 1 to ``count`` exist. However the answer is cut into pieces, together they give the same text.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held = ""
        self._begun = False
        self._cited: set[int] = set()
        self.removed = 0
        """Citations of passages that do not exist."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Those that exist and stand in the text, in order."""
        return tuple(sorted(self._cited))

    def read(self, piece: str) -> str:
        """The text that can be shown now that this has come."""
        text = self._held + piece
        unfinished = _UNFINISHED.search(text)
        ready = len(text) if unfinished is None else unfinished.start()
        self._held = text[ready:]
        return self._show(text[:ready])

    def end(self) -> str:
        """The rest, now that nothing more comes."""
        rest, self._held = self._held, ""
        return self._show(rest.rstrip())

    def _show(self, text: str) -> str:
        shown = _SPACED.sub(self._keep, text)
        if not self._begun:
            shown = shown.lstrip()
            self._begun = bool(shown)
        return shown

    def _keep(self, found: re.Match[str]) -> str:
        real: dict[int, None] = {}
        for first, last in ranges(found[0]):
            real.update(dict.fromkeys(range(max(first, 1), min(last, self._count) + 1)))
            self.removed += not 1 <= first <= last <= self._count
        self._cited.update(real)
        space = found[0][: len(found[0]) - len(found[0].lstrip())] if real else ""
        return space + "".join(f"[{number}]" for number in real)


def check_citations(text: str, count: int) -> tuple[str, tuple[int, ...], int]:
    """The text with citations of passages 1 to ``count`` alone, each as ``[n]``; these; how many others there were."""
    citations = Citations(count)
    checked = citations.read(text) + citations.end()
    return checked, citations.numbers, citations.removed


def numbered(passages: Sequence[Passage], first: int = 1) -> str:
    """Passages as a model is shown them. Numbers in brackets of their own become ``(n)``: they cite nothing here."""
    texts = (without_citations(passage.text.strip()) for passage in passages)
    return "\n\n".join(f"[{number}] {text}" for number, text in enumerate(texts, first))
