"""Sums in a chain of thought, recomputed: each ``expression = result`` of a text by the calculator of the tools.

A result may be rounded: it holds if it is the value to the digits that it shows. Where a side may be a part of more (an
unknown, a unit, a root, a range, a remainder), it is not judged: a sum that is missed does less harm than a right one
that is called wrong. No text takes longer than its length. Not here: steps of reasoning in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise

from pagoda.core.errors import ToolError
from pagoda.logic.tools.calculator import calculate
from pagoda.logic.trust.vocabulary import vocabulary

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
_NARROW = str.maketrans({chr(ord(sign) + 0xFEE0): sign for sign in "0123456789+-*/=()%$"} | {"￥": "¥"})
_WORD = rf"\b(?:{'|'.join(word for word in _WORDS if word.isascii())})\b|加上?|减去?|乘以?|除以"
_EQUALS = r"[=≈]|\bequals\b|约?等于"
_NUMBER = r"[$€£¥]?(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?+%?+"
_OPERATOR = rf"\*\*|[-+*/×÷^−]|(?<=\s)x(?=\s)|{_WORD}"

_RUN = re.compile(rf"(?:[^\S\n]|[\d%)$€£¥]|[.,](?=\d)|\((?=\s?[-−(\d$€£¥])|{_EQUALS}|{_OPERATOR})++", re.IGNORECASE)
"""Signs of arithmetic that stand together in a line."""
_MARK = re.compile(_EQUALS, re.IGNORECASE)
_SIDE = re.compile(
    rf"[(\s]*+(?:[-−][(\s]*+)?+{_NUMBER}(?:[)\s]*+(?:{_OPERATOR})[(\s]*+(?:[-−][(\s]*+)?+{_NUMBER})*+[)\s]*+",
    re.IGNORECASE,
)
_COMPUTES = re.compile(rf"[\d%)]\s*(?:{_OPERATOR})", re.IGNORECASE)
_RANGE = re.compile(r"\d-\d|\d/\d+/\d|/\s+\d+/\d")  # beside a sign with spaces: a range, a date, a fraction
_SHARE = re.compile(r"[-+−]\s*[\d.,]+%")  # "100 + 10%" mostly means 110
_LEAD = re.compile(r"(\s*+)([-*]\s++)?+(?:\*\*)?+")  # space, the mark of a list, bold
_LINE = re.compile(r"(?:^|(?<![-+*/×÷^−=≈(\s])\s*\n)\s*$")
"""That a line begins, and none goes on."""
_BEFORE = re.compile(r"(?:(?<![\w\\])([^\W\d_]{2,})|[.,:;!?])\s+$|[\u4e00-\u9fff，。：；、！？“\"]\s*$")
_AFTER = re.compile(
    r"\s*(?:$|[。，；：、！？”\"\])】]|[,;:?.](?![\d.])|\n(?!\s*[+/×÷=≈])|[\u4e00-\u9fff])|\s+\(?([^\W\d_]{2,})"
)
_NOT_BEFORE, _NOT_AFTER = frozenset(vocabulary("before_no_sum")), frozenset(vocabulary("after_no_sum"))
_NOT_BESIDE = frozenset("负号半除的余万亿千百十分成又点进")
_NEAR = 24  # characters beside a run that are looked at


@dataclass(frozen=True, slots=True)
class Slip:
    """A sum that does not come out: the characters from ``start`` up to ``end``."""

    start: int
    end: int
    said: str
    value: str
    """What it comes to."""


@dataclass(frozen=True, slots=True)
class _Side:
    """A side of an equation: the characters from ``start`` up to ``end``."""

    start: int
    end: int
    text: str

    @property
    def computes(self) -> bool:
        return _COMPUTES.search(self.text) is not None


def recompute(text: str) -> tuple[list[Slip], int]:
    """The sums of a text that do not come out, in order, and how many were recomputed."""
    found, count = [], 0
    for left, right, about in _equations(text):
        count += 1
        value = _wrong(left, right, about)
        if value is not None:
            found.append(Slip(left.start, right.end, text[left.start : right.end], value))
    return found, count


def _equations(text: str) -> Iterator[tuple[_Side, _Side, bool]]:
    """Both sides of each equation, and whether it is about equal; a chain ``a = b = c`` is one for each sign."""
    text = text.translate(_NARROW)
    for run in _RUN.finditer(text):
        marks = list(_MARK.finditer(text, run.start(), run.end()))
        if not marks:
            continue
        begins, ends = [run.start(), *(mark.end() for mark in marks)], [*(mark.start() for mark in marks), run.end()]
        begins[0], ends[-1] = _begin(text, begins[0], ends[0]), _end(text, begins[-1], ends[-1])
        sides = [_side(text, begin, end) for begin, end in zip(begins, ends, strict=True)]
        for (left, right), mark in zip(pairwise(sides), marks, strict=True):
            if left is not None and right is not None and _can_be_judged(left, right):
                yield left, right, mark[0] in ("≈", "约等于")


def _begin(text: str, start: int, end: int) -> int:
    """Where the first side of a run begins; at its end, so that it is empty, if it may be a part of more."""
    before, lead = text[max(0, start - _NEAR) : start], next(_LEAD.finditer(text, start, end))
    if not _LINE.search(before):
        found = _BEFORE.search(before + lead[1])
        if lead[2] or found is None or (found[1] or "").lower() in _NOT_BEFORE or before[-1:] in _NOT_BESIDE:
            return end
    begin = lead.end()
    brackets = text[begin:end]
    return begin + (brackets[:1] == "(" and brackets.count("(") == brackets.count(")") + 1)


def _end(text: str, start: int, end: int) -> int:
    """Where the last side of a run ends; at its begin, so that it is empty, if it may be a part of more."""
    side = text[start:end].rstrip()
    bare = side.removesuffix("**")
    found = _AFTER.match(text[start + len(side) : end + _NEAR])
    if found is None or (found[1] or "").lower() in _NOT_AFTER or found[0].strip()[-1:] in _NOT_BESIDE:
        return start
    return start + len(bare) - (bare[-1:] == ")" and bare.count(")") == bare.count("(") + 1)


def _side(text: str, begin: int, end: int) -> _Side | None:
    """What stands there, without space around; ``None`` unless it is a whole expression."""
    said = text[begin:end]
    if _SIDE.fullmatch(said) is None or said.count("(") != said.count(")"):
        return None
    begin += len(said) - len(said.lstrip())
    return _Side(begin, begin + len(said.strip()), said.strip())


def _can_be_judged(left: _Side, right: _Side) -> bool:
    """Whether there is something to recompute that is read in one way only."""
    both = f"{left.text} {right.text}"
    if _SHARE.search(both) and both.count("%") != len(re.findall(_NUMBER, both)):
        return False
    if right.start - left.end > 1 and _RANGE.search(both):
        return False
    return left.computes or right.computes


def _plain(side: str) -> str:
    """A side as the calculator reads it."""
    text = side.lower()
    for word, sign in _WORDS.items():
        text = text.replace(word, sign)
    text = re.sub(r"[$€£¥,]", "", text).replace("x", "*")
    return re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", text)


def _wrong(left: _Side, right: _Side, about: bool) -> str | None:
    """What an equation comes to if that is not what it says."""
    computed, claimed = (left, right) if left.computes else (right, left)
    readings = [claimed.text]
    if "%" in claimed.text and "%" not in computed.text:
        readings.append(claimed.text.replace("%", ""))  # "1/4 * 100 = 25%"
    try:
        value = calculate(_plain(computed.text))
        if any(_comes_out(Decimal(value), each, claimed.computes, about) for each in readings):
            return None
    except (ToolError, InvalidOperation):
        return None
    return value


def _comes_out(value: Decimal, shown: str, exact: bool, about: bool) -> bool:
    """Whether a value is the shown one, as far as that shows digits."""
    claimed = Decimal(calculate(_plain(shown)))
    off = abs(value - claimed)
    if value == claimed or exact:
        return off <= abs(value) * Decimal("1e-9")
    if about:  # zeros at the end may be rounded as well
        return off <= Decimal(1).scaleb(int(claimed.normalize().as_tuple().exponent))
    digits = len(shown.rstrip("%) ").partition(".")[2]) + (2 if shown.rstrip(") ").endswith("%") else 0)
    unit = Decimal(1).scaleb(-digits)
    return off < unit if digits else off <= unit / 2  # decimals are cut off as often as rounded
