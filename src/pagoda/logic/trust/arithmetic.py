"""Sums in a chain of thought, recomputed: each ``expression = result`` of a text by the calculator of the tools.

A result may be rounded: it holds if it is the value to the digits that it shows. What is no plain arithmetic (an
unknown, a unit in between) is not looked at. Not here: steps of reasoning in words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise

from pagoda.core.errors import ToolError
from pagoda.logic.tools.calculator import calculate

_NUMBER = r"[$€£¥￥]?\s?\d+(?:,\d{3})+(?:\.\d+)?%?|[$€£¥￥]?\s?\d+(?:\.\d+)?%?"
_OPERATOR = r"[-+*/×÷x^−]|plus|minus|times|multiplied by|divided by|加上?|减去?|乘以?|除以"
_SIDE = rf"[-(（]*\s*(?:{_NUMBER})(?:\s*[)）]*\s*(?:{_OPERATOR})\s*[-(（]*\s*(?:{_NUMBER}))*\s*[)）]*"
_EQUATION = re.compile(
    rf"(?<![\w.,=])({_SIDE})((?:\s*(?:=|≈|equals|等于|约等于)\s*{_SIDE})+)(?![\w%]|\s*(?:{_OPERATOR})\s*[\w(])",
    re.IGNORECASE,
)
_EQUALS = re.compile(r"\s*(=|≈|equals|约等于|等于)\s*", re.IGNORECASE)
_WORDS = {
    "multiplied by": "*",
    "divided by": "/",
    "plus": "+",
    "minus": "-",
    "times": "*",
    "加上": "+",
    "减去": "-",
    "乘以": "*",
    "除以": "/",
    "加": "+",
    "减": "-",
    "乘": "*",
}
_OPERATORS = frozenset("+-*/^×÷−")


@dataclass(frozen=True, slots=True)
class Slip:
    """A sum that does not come out: the characters from ``start`` up to ``end``."""

    start: int
    end: int
    said: str
    value: str
    """What it comes to."""


def slips(text: str) -> list[Slip]:
    """The sums of a text that do not come out, in order."""
    return [
        slip for start, end, left, right in _equations(text) if (slip := _slip(start, end, left, right)) is not None
    ]


def sums(text: str) -> int:
    """How many sums of a text can be recomputed."""
    return sum(1 for _ in _equations(text))


def _equations(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Begin, end and both sides of each equation; a chain ``a = b = c`` is one for each sign."""
    for found in _EQUATION.finditer(text):
        whole = found[0]
        marks = list(_EQUALS.finditer(whole))
        begins, ends = [0, *(mark.end() for mark in marks)], [*(mark.start() for mark in marks), len(whole)]
        sides = list(zip(begins, ends, strict=True))
        for (begin, mid), (again, end) in pairwise(sides):
            left, right = whole[begin:mid].strip(), whole[again:end].strip()
            if _computes(left) or _computes(right):
                indent = len(whole[begin:mid]) - len(whole[begin:mid].lstrip())
                yield found.start() + begin + indent, found.start() + end, left, right


def _computes(side: str) -> bool:
    plain = _plain(side)
    return any(letter in _OPERATORS for letter in plain.lstrip("-( "))


def _plain(side: str) -> str:
    """A side as the calculator reads it."""
    text = unicodedata.normalize("NFKC", side).lower()
    for word, sign in _WORDS.items():
        text = text.replace(word, sign)
    text = re.sub(r"[$€£¥]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", text)
    return re.sub(r"(?<=[\d)\s])x(?=[\d(\s])", "*", text)


def _slip(start: int, end: int, left: str, right: str) -> Slip | None:
    try:
        value, claimed = calculate(_plain(left)), calculate(_plain(right))
        wrong = not _comes_out(Decimal(value), Decimal(claimed), right)
    except (ToolError, InvalidOperation):
        return None
    return Slip(start, end, f"{left} = {right}", value) if wrong else None


def _comes_out(value: Decimal, claimed: Decimal, shown: str) -> bool:
    """Whether a value is the claimed one, as far as the claimed one shows digits."""
    if value == claimed:
        return True
    if _computes(shown):
        return abs(value - claimed) <= abs(value) * Decimal("1e-9")
    digits = len(shown.rstrip("%) ").partition(".")[2]) + (2 if shown.rstrip(") ").endswith("%") else 0)
    off, unit = abs(value - claimed), Decimal(1).scaleb(-digits)
    return off < unit if digits else off <= unit / 2  # decimals are cut off as often as rounded
