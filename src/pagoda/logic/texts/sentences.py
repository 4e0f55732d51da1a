"""Where sentences end, in English and Chinese. Not here: what they say, and pieces of a text that fit a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_CLOSING = r"[”’」』）)\]\"']*"
_FOLLOWED = r"(?=\s|$|[\u3400-\u9fff])"
_SENTENCE = re.compile(
    rf"[。！？…]+{_CLOSING}|(?<![.!?])[.!?]++{_CLOSING}+{_FOLLOWED}|\n\s*\n|\n(?=\s*(?:[-*#|>]|\d{{1,9}}\.))"
)
_PART = re.compile(rf"[。！？；…]+{_CLOSING}|(?<![.!?;])[.!?;]++{_CLOSING}+{_FOLLOWED}|\n+")
_NEAR = 24  # characters before a full stop that tell whether it ends a sentence
_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Mt|Ft|vs|etc|cf|al|approx|ca|No|Vol|Inc|Ltd|Co|Corp|Gen|Col|Lt|Capt|Sgt|Rev|Hon|Gov|Sen|"
    "Rep|Pres|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec"
)
_ABBREVIATION = re.compile(rf"(?:^|[\s(\"'“])(?:[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]|{_ABBREVIATIONS})$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """The characters of a text from ``start`` up to ``end``, with the blanks around them."""

    start: int
    end: int
    mark: str
    """What ends it; empty at the end of a text that has none."""


def sentences(text: str, *, parts: bool = False) -> Iterator[Sentence]:
    """The sentences of a text in order, which cover it; ``parts`` also ends one at each semicolon and line."""
    begin = 0
    for match in (_PART if parts else _SENTENCE).finditer(text):
        if match[0].startswith(".") and _goes_on(text, begin, match.start()):
            continue
        yield Sentence(begin, match.end(), match[0])
        begin = match.end()
    if begin < len(text):
        yield Sentence(begin, len(text), "")


def _goes_on(text: str, begin: int, stop: int) -> bool:
    """Whether a full stop ends nothing: after an abbreviation, or the number that begins an item of a list."""
    before = text[max(begin, stop - _NEAR) : stop]
    return _ABBREVIATION.search(before) is not None or (stop - begin <= _NEAR and before.strip(" *-").isdigit())
