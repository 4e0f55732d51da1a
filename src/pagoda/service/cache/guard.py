"""Whether two questions agree in what embeddings blur: numbers, names, negation, time, and the order of words.

It only refuses: what it lets through may still differ. Made for English and Chinese; in other languages it sees digits,
Latin names and order. Not a parser: word lists and pairs of opposites, so that it costs microseconds.
"""

from __future__ import annotations

import re
from collections import Counter

_TOKEN = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|\d+(?:[.,:]\d+)*|[\u3400-\u9fff]|[^\W\d_]+")
_ENGLISH = re.compile(
    # numbers
    r"\d.*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|"
    r"hundreds?|thousands?|millions?|half|third|quarter|double|twice|first|second|once|dozen|"
    # negation and its relatives
    r"no|not|never|none|nothing|nobody|without|cannot|neither|nor|\w+n't|off|on|stop|cancel|accept|reject|refuse|"
    r"(?:dis)?agreed?|(?:dis)?allow(?:ed)?|block|forbid(?:den)?|deny|exclude|include|cover|true|false|open|closed?|hide|show|"
    r"(?:en|dis)able|longer|"
    # time
    r"today|yesterday|tomorrow|tonight|now|then|before|after|during|since|until|till|ago|later|last|next|this|past|future|"
    r"morning|noon|afternoon|evening|night|midnight|breakfast|lunch|dinner|spring|summer|autumn|fall|winter|\w+day|january|"
    r"february|march|april|may|june|july|august|september|october|november|december|was|were|will|did|centur(?:y|ies)|"
    r"years?|months?|weeks?"
)
_CHINESE = re.compile(
    r"第?[〇零一二两三四五六七八九十百千万亿半]+|"
    r"不|没|未|无|非|别|勿|莫|否|禁止|拒绝|反对|取消|关闭|关掉|关着|打开|开着|开启|解锁|锁定|卸载|挂载|隐藏|公开|违法|合法|对的|错的|"
    r"今[天年晚]|昨[天晚]|明[天年晚]|[以之]?[前后]|上[周个]|下[周个]|本周|这个|春|夏|秋|冬|上午|下午|早[上餐]?|午|晚[上餐]?|夜|"
    r"傍晚|半夜|年|月|周|将要?|已经|过去|现在|目前|当今|起"
)
_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non")
_FIRST = re.compile(r"(?:^|[.!?。！？:：]\s*)[\"“‘']?([A-Za-z]+)")
_NAME = re.compile(r"\b(?:[A-Z][\w-]*|\w*\d\w*[A-Za-z]\w*|[a-z]+[A-Z]\w*)\b")


def agree(one: str, other: str) -> bool:
    """Whether nothing that can be seen cheaply sets two questions apart."""
    left, right = _tokens(one), _tokens(other)
    return (
        _marks(one, left) == _marks(other, right)
        and _names(one) == _names(other)
        and not _opposed(set(left), set(right))
        and not (left != right and Counter(left) == Counter(right))
    )


def _tokens(text: str) -> list[str]:
    return [token.lower() for token in _TOKEN.findall(text.replace("’", "'"))]


def _marks(text: str, tokens: list[str]) -> Counter[str]:
    """Numbers, negations and words of time, each as often as it is said."""
    found = Counter("not" if token.endswith("n't") else token for token in tokens if _ENGLISH.fullmatch(token))
    found.update(mark for mark in _CHINESE.findall(text) if mark != "一")  # alone it is mostly an article
    return found


def _names(text: str) -> set[str]:
    """Words in capitals or with digits; the first word of a sentence tells nothing."""
    first = {match[1] for match in _FIRST.finditer(text) if match[1].istitle()}
    return {name.lower() for name in _NAME.findall(text) if name not in first and name != "I"}


def _opposed(left: set[str], right: set[str]) -> bool:
    """Whether one has a word and the other its opposite by prefix: safe and unsafe."""
    return any(
        prefix + word in those
        for these, those in ((left - right, right - left), (right - left, left - right))
        for word in these
        for prefix in _PREFIXES
    )
