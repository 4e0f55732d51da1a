"""Minimal pairs from public contexts: a sentence of a text, and the same with one detail changed.

Both members get the same small rewrite (parentheses dropped, a leading "In 1990," moved to the end), so that few are
copies. The changed detail is of the same kind and about the same length, and comes from the same text where it can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from pagoda.logic.trust.claims import split_claims

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?!\w)")
_ZH_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+(?: (?:of |the )?[A-Z][a-z]+)*")
_PARENTHESES = re.compile(r"\s*[(（][^()（）]*[)）]")
_LEADING = re.compile(r"^((?:In|On|At|During|After|Before|By|From|Since|For) [^,]{3,60}), (\S)(.+?)([.!]?)$")
_BE = re.compile(r"\b(is|was|are|were|has|have|had|can|could|will|would|did|does|do)\b(?! not)")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two claims about one text."""

    true: str
    false: str
    kind: str
    inside: bool
    """Whether the changed detail stands elsewhere in the same text."""


def draw(key: str, most: int) -> int:
    """A number below ``most`` that is always the same for a key."""
    return int(sha256(key.encode()).hexdigest(), 16) % max(most, 1)


def rewrite(sentence: str) -> str:
    """The small change that both members get."""
    plain = _PARENTHESES.sub("", sentence).strip()
    if (found := _LEADING.match(plain)) is not None:
        lead, first, rest, end = found.groups()
        return f"{first.upper()}{rest} {lead[0].lower()}{lead[1:]}{end}"
    return re.sub(r"^(此外|因此|然而|同时|另外|其中|而|但|并且)[，,]?", "", plain)


def turned(sentence: str) -> str:
    """The same said in another order: its last phrase first, so that a judge learns that order alone means little."""
    if (parts := re.split(r"[，,]", sentence.rstrip("。")))[1:] and not sentence.isascii():
        return "，".join([*parts[1:], parts[0]]) + "。"
    found = list(re.finditer(r" (?:in|on|at|by|for|from|with|during|as|to) ", sentence))
    if not found:
        return sentence
    at = found[draw(sentence, len(found))].start()
    return f"{sentence[at + 1 :].rstrip('.')} {sentence[:at]}."


def pair_from(key: str, context: str, answer: str, others: list[str], *, chinese: bool) -> Pair | None:
    """The pair of a text, about the sentence that holds ``answer``; ``others`` are entities that may replace it."""
    low, high = (15, 90) if chinese else (40, 240)
    sentences = [claim.text for claim in split_claims(context) if low <= len(claim.text) <= high]
    holding = [sentence for sentence in sentences if answer and answer in sentence]
    pool = holding or sentences
    if not pool:
        return None
    sentence = rewrite(pool[draw(key, len(pool))])
    makers = (_name, _number, _negation, _date)
    turn = draw(f"{key}/kind", len(makers))
    for make in (*makers[turn:], *makers[:turn]):
        made = make(key, sentence, context, answer, others, chinese)
        if made is not None and made[0] != sentence:
            false, inside = made
            return Pair(sentence, false, make.__name__.strip("_"), inside)
    return None


Made = tuple[str, bool] | None


def _replaced(sentence: str, old: str, new: str) -> str:
    at = sentence.index(old)
    return sentence[:at] + new + sentence[at + len(old) :]


def _nearest(key: str, old: str, candidates: list[str]) -> str | None:
    fitting = sorted(
        {each for each in candidates if each != old and each not in old and old not in each},
        key=lambda each: (abs(len(each) - len(old)), draw(key + each, 997), each),
    )
    return fitting[0] if fitting and abs(len(fitting[0]) - len(old)) <= max(4, len(old) // 2) else None


def _name(key: str, sentence: str, context: str, answer: str, others: list[str], chinese: bool) -> Made:
    if chinese:
        names = [answer] if answer in sentence and 2 <= len(answer) <= 12 else []
    else:
        names = [name for name in _NAME.findall(sentence) if name not in MONTHS]
    if not names:
        return None
    old = names[draw(f"{key}/which", len(names))]
    inside = [name for name in _NAME.findall(context) if name not in sentence and name not in MONTHS]
    if chinese:
        inside = [each for each in others if each in context and each not in sentence and 2 <= len(each) <= 12]
    new = _nearest(key, old, inside)
    if new is not None:
        return _replaced(sentence, old, new), True
    new = _nearest(key, old, [each for each in others if each not in context])
    return None if new is None else (_replaced(sentence, old, new), False)


def _number(key: str, sentence: str, context: str, answer: str, others: list[str], chinese: bool) -> Made:
    pattern = _ZH_NUMBER if chinese else _NUMBER
    numbers = pattern.findall(sentence)
    if not numbers:
        return None
    old = numbers[draw(f"{key}/which", len(numbers))]
    here = [each for each in pattern.findall(context) if len(each) == len(old) and each not in sentence]
    if here:
        return _replaced(sentence, old, here[draw(f"{key}/new", len(here))]), True
    digits = [at for at, letter in enumerate(old) if letter.isdigit()]
    at = digits[-1] if len(digits) == 1 else digits[1 + draw(f"{key}/digit", len(digits) - 1)]
    digit = str((int(old[at]) + 1 + draw(f"{key}/by", 8)) % 10)
    return _replaced(sentence, old, old[:at] + digit + old[at + 1 :]), False


def _date(key: str, sentence: str, context: str, answer: str, others: list[str], chinese: bool) -> Made:
    months = [month for month in MONTHS if re.search(rf"\b{month}\b", sentence)]
    if months:
        old = months[draw(f"{key}/which", len(months))]
        new = [month for month in MONTHS if month not in months][draw(f"{key}/new", 12 - len(months))]
        return _replaced(sentence, old, new), new in context
    years = re.findall(r"(?<!\d)(?:1[5-9]|20)\d\d(?!\d)", sentence)
    if not years:
        return None
    old = years[draw(f"{key}/which", len(years))]
    new = str(int(old) + (1 + draw(f"{key}/by", 9)) * (-1 if draw(f"{key}/sign", 2) else 1))
    return _replaced(sentence, old, new), new in context


def _negation(key: str, sentence: str, context: str, answer: str, others: list[str], chinese: bool) -> Made:
    if chinese:
        for old, new in (
            ("没有", "有"),
            ("不是", "是"),
            ("不能", "能"),
            ("不会", "会"),
            ("是", "不是"),
            ("能够", "不能"),
            ("可以", "不可以"),
        ):
            if old in sentence:
                return _replaced(sentence, old, new), False
        return None
    if " not " in sentence:
        return sentence.replace(" not ", " ", 1), False
    found = list(_BE.finditer(sentence))
    if not found:
        return None
    verb = found[draw(f"{key}/which", len(found))]
    return sentence[: verb.end()] + " not" + sentence[verb.end() :], False
