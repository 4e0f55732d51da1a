"""Scores of an answer by rule: 1 good, 0 not. Cheap signs of trouble, not a judgement of content."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pagoda.logic.experiments.refusal import refuses

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_GRAM = 4
_MOST_REPEATED = 0.5
_LEAST_GRAMS = 12
_MOSTLY = 0.3


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked last, what was answered, and how the answer ended."""

    question: str
    answer: str
    finish: str


def _said(exchange: Exchange) -> bool:
    """There is an answer at all."""
    return bool(exchange.answer.strip())


def _whole(exchange: Exchange) -> bool:
    """It ended by itself, not by a limit or a filter."""
    return exchange.finish in ("stop", "tool_calls")


def _willing(exchange: Exchange) -> bool:
    """It does not refuse."""
    return not refuses(exchange.answer[:200])


def _language(exchange: Exchange) -> bool:
    """A question in Chinese is answered with some Chinese, any other mostly without."""
    asked, told = _chinese(exchange.question), _chinese(exchange.answer)
    if asked is None or told is None:
        return True
    return told > 0.1 if asked > _MOSTLY else told < 0.5


def _steady(exchange: Exchange) -> bool:
    """It does not say the same over and over: few of its runs of four words (characters in Chinese) come again."""
    chinese = is_chinese(exchange.answer)
    words = list(exchange.answer.replace(" ", "")) if chinese else exchange.answer.split()
    grams = Counter(tuple(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1))
    count = sum(grams.values())
    return count < _LEAST_GRAMS or 1 - len(grams) / count <= _MOST_REPEATED


def is_chinese(text: str) -> bool:
    """Whether a text is written in Chinese, some foreign words aside."""
    return (_chinese(text) or 0.0) > _MOSTLY


def last_words(asked: Mapping[str, Any]) -> str:
    """What was asked last, of ``{"messages": [...]}`` or ``{"text": ...}``."""
    messages = asked.get("messages")
    content = messages[-1].get("content") if messages else asked.get("text")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def _chinese(text: str) -> float | None:
    """The share of Chinese among the letters; ``None`` without letters."""
    letters = len(_LETTER.findall(text))
    return len(_CHINESE.findall(text)) / letters if letters else None


RULES: Mapping[str, Callable[[Exchange], bool]] = {
    "said": _said,
    "whole": _whole,
    "willing": _willing,
    "language": _language,
    "steady": _steady,
}
