"""Texts cut into claims: sentences, and parts of them that stand for themselves, in English and Chinese.

Every claim is exactly ``text[start:end]`` in characters, in order and without overlap. Questions, greetings, words of
the model about itself and bare sums claim nothing that sources could bear out, and are told apart. Not here: whether
a claim is true.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from pagoda.logic.texts.citations import CITATION
from pagoda.logic.texts.sentences import sentences

MOST_CLAIMS = 200
"""Of one text that are judged; what comes after is not looked at, and the report says so (``Checks.cut``)."""

_BEFORE = re.compile(r"[\s\-*•·>#]*(?:(?:\d{1,3}|[A-Za-z])[.)、](?=\s|[\u3400-\u9fff])[\s*]*)?")
_AFTER = re.compile(rf"(?<!\s)(?:\s++|{CITATION.pattern}){{1,50}}+$")
_LETTER = re.compile(r"\w")
_WORDS = re.compile(r"[A-Za-z\u3400-\u9fff]")
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
    for part in sentences(text, parts=True):
        start = part.start + len(_matched(_BEFORE, text[part.start : part.end]))
        piece = text[start : part.end]
        piece = piece[: len(piece) - len(_found(_AFTER, piece))]
        if not _LETTER.search(CITATION.sub("", piece)):
            continue
        if len(claims) >= most:
            break
        idle = part.mark.strip()[:1] in ("?", "？") or _IDLE.match(piece) is not None or _is_sum(piece)
        claims.append(Claim(start, start + len(piece), piece, not idle))
    return claims


def _is_sum(piece: str) -> bool:
    return ("=" in piece or "≈" in piece) and _WORDS.search(piece) is None


def _matched(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return "" if match is None else match[0]


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "" if match is None else match[0]
