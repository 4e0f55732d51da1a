"""The details that a claim stands or falls with: numbers, dates, names, and whether something is denied.

Each is found in its place and brought to one form, so that ``1,200``, ``twelve hundred`` and ``一千二百`` are equal, as
are ``5月`` and ``May``. Chinese names have no capitals; of these only what stands in quotes is known as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Literal, TypeAlias

from pagoda.logic.texts.citations import CITATION
from pagoda.logic.trust.vocabulary import vocabulary

Kind: TypeAlias = Literal["number", "date", "name"]


@dataclass(frozen=True, slots=True)
class Detail:
    """A detail of a text: the characters from ``start`` up to ``end``, and what they stand for."""

    kind: Kind
    value: str
    start: int
    end: int


_MONTHS = vocabulary("months")
_MONTH = re.compile(
    r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)(uary|ruary|ch|il|e|y|ust|ember|tember|ober)?\b\.?"
    r"|(\d{1,2})\s*月"
)
_NUMBER = re.compile(r"(?<![A-Za-z\d.,])\d+(?:,\d{3})*(?:\.\d+)?\s*(?:hundred|thousand|million|billion|[十百千万亿])?")
_ONE_SPELT = "|".join([*vocabulary("up_to_nineteen")[:0:-1], *vocabulary("tens"), "hundred|thousand|million|billion"])
_SPELT = re.compile(rf"\b(?:(?:{_ONE_SPELT})(?:[\s-]+(?:and\s+)?|\b))+", re.IGNORECASE)
_CHINESE = re.compile(
    r"(?<![周期拜])(?:[零〇一二两三四五六七八九十百千万亿]{2,}|[一二三四五六七八九十](?=[年月日号点时级届次名人个座条种倍]))"
)
_SMALL = dict(zip(vocabulary("up_to_nineteen"), range(20), strict=True))
_SMALL |= dict(zip(vocabulary("tens"), range(20, 100, 10), strict=True))
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SCALES |= {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_DIGITS = {digit: number for number, digits in enumerate(["零〇", "一", "二两", *"三四五六七八九"]) for digit in digits}
_NAME = re.compile(
    r"(?:[A-Z][\w'’.-]{0,60}[a-z\d]|[A-Z]{2,}|[A-Z]\.)"
    r"(?:\s+(?:of|the|de|van|von|da|and|al|bin)(?=\s+[A-Z])|\s+(?:[A-Z][\w'’.-]*|[A-Z]\.))*"
)
_QUOTED = re.compile(r"[《「『“]([^》」』”]{1,40})[》」』”]")
_DENIAL = re.compile(
    r"\b(?:not|never|no|none|nobody|nothing|neither|nor|without|cannot|fail(?:s|ed)? to|unable)\b|n['’]t\b"
    r"|没有?|[不未无非勿莫]",
    re.IGNORECASE,
)
_NO_DENIAL = re.compile(
    r"not only|no\.\s?\d|不(?:同|仅|只|但|过|少|断|管|论|久|得不|如|锈|幸|丹)|未(?:来|必|免)"
    r"|无(?:论|数|线|锡|限|疑|机)|非(?:常|洲|凡|得|物质)",
    re.IGNORECASE,
)
_LONGEST = 200  # characters of a number that is read; what is longer is no amount, and stands as it is written
_EXACT = Context(prec=2 * _LONGEST)
_NO_NAME = frozenset(vocabulary("no_names"))


def details(text: str) -> list[Detail]:
    """All numbers, dates and names of a text, in order; its citations are no numbers of it."""
    plain = CITATION.sub(lambda found: " " * len(found[0]), _same_length(text))
    found = list(_dates(plain))
    taken = [False] * len(plain)
    for each in found:
        taken[each.start : each.end] = [True] * (each.end - each.start)
    found += [each for each in _whole(_numbers(plain)) if not any(taken[each.start : each.end])]
    found += _names(plain)
    return sorted(found, key=lambda each: (each.start, each.end))


def with_plain_numbers(text: str) -> str:
    """A text whose numbers are written in digits alone: ``3,000``, ``three thousand`` and ``三千`` are ``3000``."""
    pieces, done = [], 0
    plain = _same_length(text)
    for each in _whole(_numbers(plain)):
        pieces += [plain[done : each.start], f" {each.value} "]
        done = each.end
    return "".join((*pieces, plain[done:]))


def denials(text: str) -> int:
    """How often a text denies something."""
    return sum(1 for _ in _DENIAL.finditer(_NO_DENIAL.sub("", text)))


def _same_length(text: str) -> str:
    """Full-width letters and digits as plain ones, each character staying in its place."""
    return (
        "".join(plain if len(plain := unicodedata.normalize("NFKC", letter)) == 1 else letter for letter in text)
        if not text.isascii()
        else text
    )


def _whole(found: Iterable[Detail]) -> list[Detail]:
    """Those that are not a part of another: of ``3 million`` not the ``million`` alone."""
    kept: list[Detail] = []
    for each in sorted(found, key=lambda one: (one.start, -one.end)):
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
    return kept


def _dates(text: str) -> Iterator[Detail]:
    for found in _MONTH.finditer(text):
        if found[3]:
            yield Detail("date", f"month {int(found[3])}", found.start(), found.end())
        elif found[1] != "May" or re.search(r"\d", text[max(0, found.start() - 5) : found.end() + 6]):
            begun = found[1].lower()[:3]
            number = next(at for at, month in enumerate(_MONTHS, 1) if month.startswith(begun))
            yield Detail("date", f"month {number}", found.start(), found.end())


def _numbers(text: str) -> Iterator[Detail]:
    for found in _NUMBER.finditer(text):
        plain = found[0].replace(",", "").strip()
        yield Detail("number", _value(plain, _written), found.start(), found.start() + len(found[0].rstrip()))
    for found in _SPELT.finditer(text):
        words = found[0].lower().rstrip(" -")
        if _number_words(words) != ["one"]:  # which is mostly none
            yield Detail("number", _value(words, _spelt), found.start(), found.start() + len(words))
    for found in _CHINESE.finditer(text):
        yield Detail("number", _value(found[0], _chinese), found.start(), found.end())


def _value(number: str, read: Callable[[str], str]) -> str:
    return read(number) if len(number) <= _LONGEST else number


def _names(text: str) -> Iterator[Detail]:
    for found in _NAME.finditer(text):
        words = found[0].split()
        start = found.start()
        while words and words[0].lower() in _NO_NAME:  # a sentence's first word has a capital too
            start += len(words[0]) + 1
            words = words[1:]
        if words and not (len(words) == 1 and words[0].lower() in _MONTHS):
            end = found.end()
            yield Detail("name", " ".join(words).lower().rstrip(".'’"), min(start, end), end)
    for found in _QUOTED.finditer(text):
        yield Detail("name", found[1].strip().lower(), found.start(1), found.end(1))


def _written(number: str) -> str:
    """The value of a number in digits, with a scale in words behind it or none."""
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz十百千万亿 ")
    scale = _SCALES.get(number[len(digits) :].strip(), 1)
    return f"{_EXACT.multiply(Decimal(digits), Decimal(scale)).normalize(_EXACT):f}"


def _spelt(words: str) -> str:
    """The value of a number in English words."""
    total, group = 0, 0
    for word in _number_words(words):
        if word == "hundred":
            group = max(group, 1) * 100
        elif word in _SCALES:
            total, group = total + max(group, 1) * _SCALES[word], 0
        else:
            group += _SMALL[word]
    return str(total + group)


def _number_words(words: str) -> list[str]:
    return [word for word in re.split(r"[\s-]+", words) if word and word != "and"]


def _chinese(text: str) -> str:
    """The value of a number in Chinese characters: with scales, or digit by digit as years are written."""
    if not any(letter in _SCALES for letter in text):
        return str(int("".join(str(_DIGITS[letter]) for letter in text)))
    total, section, digit = 0, 0, 0
    for letter in text:
        if letter in _DIGITS:
            digit = _DIGITS[letter]
        elif (scale := _SCALES[letter]) < 10**4:
            section, digit = section + max(digit, 1) * scale, 0
        else:
            total, section, digit = (total + max(section + digit, 1)) * scale, 0, 0
    return str(total + section + digit)
