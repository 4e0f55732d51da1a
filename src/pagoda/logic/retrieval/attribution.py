"""Citations that a model left out: a sentence that cites nothing gets the number of a passage that bears it out.

Which passage does is asked of a ``Grounds`` (``logic.trust.grounds`` has the one that comes with Pagoda). Nothing that
was given on is taken back, so that an answer may stream. Not here: the citations that the model wrote itself.
"""

from __future__ import annotations

import re
from typing import Protocol

from pagoda.logic.texts.citations import CITATION, LED
from pagoda.logic.texts.sentences import sentences

_UNDECIDED = re.compile(r"\s*\n\s*\d{0,9}$|\s+$")
"""What begins a line so may be an item of a list, before which a sentence ends."""
_LETTER = re.compile(r"\w")
_FENCE = "```"
_FORM = ("|", "#")
"""What rows of tables and headings begin with: a citation behind one would break it."""


class Grounds(Protocol):
    """Numbered passages that sentences may rest on."""

    async def find(self, sentence: str) -> int | None:
        """The number of the passage that bears a sentence out by itself, best of all; ``None``: none does."""
        ...


class Attribution:
    """Reads an answer piece by piece, and gives it on with the citations that its sentences lack.

    However the answer is cut into pieces, together they give the same text.
    """

    def __init__(self, grounds: Grounds) -> None:
        self._grounds = grounds
        self._open = ""  # of the sentence that has not ended, what was given on
        self._held = ""
        self._fenced = False
        self._numbers: set[int] = set()
        self.added = 0
        """Sentences that were given a citation."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the passages that were cited here, in order."""
        return tuple(sorted(self._numbers))

    async def read(self, piece: str) -> str:
        """The text that can be given on now that this has come."""
        text = self._open + self._held + piece
        undecided = _UNDECIDED.search(text, len(self._open))
        ready = len(text) if undecided is None else undecided.start()
        self._held = text[ready:]
        return await self._tell(text[:ready])

    async def end(self) -> str:
        """The rest, now that nothing more comes."""
        rest, self._held = self._held, ""
        told = await self._tell((self._open + rest).rstrip())
        return told + await self._citation(self._open)

    async def _tell(self, text: str) -> str:
        """What of the open sentence and those after it was not given on; each that has ended with its citation."""
        told, given = list[str](), len(self._open)
        while (place := _end(text)) is not None:
            told += text[given:place], await self._citation(text[:place])
            text, given = text[place:], 0
        self._open = text
        told.append(text[given:])
        return "".join(told)

    async def _citation(self, sentence: str) -> str:
        """What is to be put behind a sentence; nothing where it cites by itself, or is no prose."""
        fences = sentence.count(_FENCE)
        prose = not self._fenced and not fences and not sentence.lstrip().startswith(_FORM)
        self._fenced ^= bool(fences % 2)
        if not prose or not _LETTER.search(sentence) or CITATION.search(sentence):
            return ""
        number = await self._grounds.find(sentence.strip())
        if number is None:
            return ""
        self._numbers.add(number)
        self.added += 1
        return f" [{number}]" if sentence[-1].isascii() else f"[{number}]"


def _end(text: str) -> int | None:
    """Where the first sentence and the citations behind it end, if anything else follows."""
    first = next((each for each in sentences(text) if text[: each.end].strip()), None)
    if first is None:
        return None
    stop = len(text[: first.end].rstrip())
    led = LED.match(text, stop)
    place = stop if led is None else led.end()
    return place if text[place:].strip() else None
