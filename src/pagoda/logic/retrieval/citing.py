"""Citations in an answer: each ``[n]`` stands for a passage that was shown, also while the answer still streams in.

Those of passages that do not exist are taken out and counted. Not here: whether the passage supports the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pagoda.logic.retrieval.collection import Passage

_CITATION = re.compile(r"[ \t]*[\[【［][ \t]*(\d{1,6}(?:[ \t]*[,，、;][ \t]*\d{1,6})*)[ \t]*[\]】］]")
_UNFINISHED = re.compile(r"\s*(?:[\[【［][\d \t,，、;]*)?$")
_BRACKETED = re.compile(r"[\[【［](\s*\d[\d\s,，、;–-]*)[\]】］]")


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
        shown = _CITATION.sub(self._keep, text)
        if not self._begun:
            shown = shown.lstrip()
            self._begun = bool(shown)
        return shown

    def _keep(self, found: re.Match[str]) -> str:
        numbers = [int(number) for number in re.findall(r"\d+", found[1])]
        real = [number for number in dict.fromkeys(numbers) if 1 <= number <= self._count]
        self.removed += sum(not 1 <= number <= self._count for number in numbers)
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
    texts = (_BRACKETED.sub(r"(\1)", passage.text.strip()) for passage in passages)
    return "\n\n".join(f"[{number}] {text}" for number, text in enumerate(texts, first))
