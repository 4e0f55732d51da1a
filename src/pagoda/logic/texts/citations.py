"""How a citation is written: numbers and ranges of them, alone in brackets. Not here: what the numbers stand for."""

from __future__ import annotations

import re

_ITEM = r"(?:[1-9]\d*\s*[-–—~～]\s*)?\d+"
CITATION = re.compile(rf"[\[【［]\s*{_ITEM}(?:\s*[,，、;；]\s*{_ITEM})*\s*[\]】］]")
"""All of one, as in ``[1]``, ``[1, 3-5]`` and ``【2】``; ``[0-9]`` is rather a pattern in code."""
LED = re.compile(rf"(?:\s*{CITATION.pattern})*")
"""Citations behind the end of a sentence, which belong to it; perhaps none."""
BEGUN = re.compile(r"[\[【［][\d\s,，、;；~～–—-]*$")
"""What may yet become one, at the end of a text that is not all there."""
_RANGE = re.compile(r"(\d+)(?:\s*[-–—~～]\s*(\d+))?")
_MOST_DIGITS = 9  # more are no number of a passage, and far more no number that Python reads


def ranges(citation: str) -> list[tuple[int, int]]:
    """The first and last number of each of a citation's items. One of too many digits is 0, which cites nothing."""
    return [(_number(found[1]), _number(found[2] or found[1])) for found in _RANGE.finditer(citation)]


def without_citations(text: str) -> str:
    """The text with parentheses where brackets would pass for citations: as long as before, letter by letter."""
    return CITATION.sub(lambda found: f"({found[0][1:-1]})", text)


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= _MOST_DIGITS else 0
