"""Texts cut into claims: sentences, and parts of them that stand for themselves, in English and Chinese.

Every claim is exactly ``text[start:end]`` in characters, in order and without overlap. Questions, greetings, words of
the model about itself and bare sums claim nothing that sources could bear out, and are told apart. Not here: whether
a claim is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pagoda.logic.trust.details import CITATION
from pagoda.logic.trust.vocabulary import vocabulary

MOST_CLAIMS = 200
"""Of one text that are judged; what comes after is not looked at, and the report says so (``Checks.cut``)."""

_END = re.compile(r"[。！？；…]+[”’」』）)\]\"']*|(?<![.!?;])[.!?;]++[”’)\]\"']*+(?=\s|$|[\u3400-\u9fff])|\n+")
_ABBREVIATION = re.compile(
    rf"(?:^|[\s(\"'“])(?:[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]|{'|'.join(vocabulary('abbreviations'))})$"
)
_BEFORE = re.compile(r"[\s\-*•·>#]*(?:(?:\d{1,3}|[A-Za-z])[.)、](?=\s|[\u3400-\u9fff])[\s*]*)?")
_AFTER = re.compile(r"(?<!\s)(?:\s++|[\[【［]\s*\d{1,6}(?:\s*[,，、;]\s*\d{1,6})*\s*[\]】］]){1,50}+$")
_LETTER = re.compile(r"\w")
_WORDS = re.compile(r"[A-Za-z\u3400-\u9fff]")
_NEAR = 24  # characters before a full stop that tell whether it ends a sentence
_IDLE = re.compile(
    r"^(?:(?:sure|certainly|of course|hello|hi|thanks?|thank you|you'?re welcome|great question|here (?:is|are)\b|"
    r"let me know|i hope|i'?m sorry|i am sorry|sorry|as an ai|i'?m an ai|i (?:do not|don't|cannot|can't) (?:know|have|"
    r"answer)|the (?:text|documents?) do(?:es)? not say)|(?:当然|好的|你好|您好|谢谢|不客气|希望|抱歉|对不起|很遗憾|"
    r"作为(?:一个|一名)?(?:ai|人工智能)|我不(?:知道|清楚)|文(?:中|档中)没有说明|以下是))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A piece of a text that says one thing: the characters from ``start`` up to ``end``."""

    start: int
    end: int
    text: str
    checkable: bool
    """Whether it says something that sources could bear out: not a question, a greeting or a refusal."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def split_claims(text: str, most: int = MOST_CLAIMS) -> list[Claim]:
    """The claims of a text in order, ``most`` at most."""
    claims: list[Claim] = []
    for begin, end, mark in _sentences(text):
        start = begin + len(_matched(_BEFORE, text[begin:end]))
        piece = text[start:end]
        piece = piece[: len(piece) - len(_found(_AFTER, piece))]
        if not _LETTER.search(CITATION.sub("", piece)):
            continue
        if len(claims) >= most:
            break
        idle = mark.strip()[:1] in ("?", "？") or _IDLE.match(piece) is not None or _is_sum(piece)
        claims.append(Claim(start, start + len(piece), piece, not idle))
    return claims


def _is_sum(piece: str) -> bool:
    return ("=" in piece or "≈" in piece) and _WORDS.search(piece) is None


def _sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """Begin and end of each sentence, with the mark that ends it."""
    begin = 0
    for match in _END.finditer(text):
        if match[0].startswith(".") and _ABBREVIATION.search(text[max(begin, match.start() - _NEAR) : match.start()]):
            continue
        if match[0].startswith(".") and _is_number_of_list(text, begin, match.start()):
            continue
        end = match.end()
        yield begin, end, match[0]
        begin = end
    if begin < len(text):
        yield begin, len(text), ""


def _is_number_of_list(text: str, begin: int, end: int) -> bool:
    """``1.`` at the beginning of a line ends no sentence."""
    return end - begin <= _NEAR and text[begin:end].strip(" *-").isdigit()


def _matched(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return "" if match is None else match[0]


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "" if match is None else match[0]
