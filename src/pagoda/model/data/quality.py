"""One text looked at: its language, whether it is garbage, and what personal data are in it. Rules, no model.

The language is told by script, and among Latin letters by the commonest words; other languages in Latin letters are
``latin``. Personal data are those with a form that can be checked; names and addresses are not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache

_SCRIPTS = (
    ("ja", "HIRAGANA"),
    ("ja", "KATAKANA"),
    ("ko", "HANGUL"),
    ("zh", "CJK UNIFIED"),
    ("ru", "CYRILLIC"),
    ("ar", "ARABIC"),
    ("he", "HEBREW"),
    ("hi", "DEVANAGARI"),
    ("th", "THAI"),
    ("el", "GREEK"),
    ("latin", "LATIN"),
)
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the be to of and a in that have i it for not on with he as you do at this but his by from they we say her "
        "she or an will my one all would there their what so up out if about who get which go me when make can "
        "like time no just is are was were has had been your how why where did please",
    )
)
_MOJIBAKE = re.compile(r"Ã[\u0080-\u00bf©¨¤¶¼±]|â€[™œ\u009d\u0153\u2122]|Â[\u00a0-\u00bf]|ï»¿|锟斤拷|烫烫烫")
_MARKUP = re.compile(r"<(?:/?(?:div|span|script|style|table|td|tr|li|ul|p|a|br|img)\b[^>]*)>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_REPEATED_MARK = re.compile(r"(.)\1{19,}", re.DOTALL)

_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")
_PHONE = re.compile(r"(?<![\d.])(?:\+\d{1,3}[ -]?(?:\(?\d{1,4}\)?[ -]?){2,4}\d{2,4}|1[3-9]\d{9})(?![\d.])")
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
_CHINESE_ID = re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_ADDRESS = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def language_of(text: str) -> str:
    """``zh``, ``en``, another code that its script tells, ``latin``, or ``none`` for text without letters."""
    counts: Counter[str] = Counter()
    for mark in text[:5000]:
        if mark.isalpha():
            counts[_script(mark)] += 1
    if not counts:
        return "none"
    # A Chinese sign says as much as some Latin letters; Japanese has Chinese signs too, but no Chinese has kana.
    weighted = {name: count * (3 if name in ("zh", "ja", "ko") else 1) for name, count in counts.items()}
    if weighted.get("ja", 0) * 5 > weighted.get("zh", 0) and "ja" in weighted:
        weighted["ja"] += weighted.pop("zh", 0)
    best = max(weighted, key=lambda name: weighted[name])
    if best != "latin":
        return best
    words = re.findall(r"[a-z']+", text[:5000].lower())
    common = sum(word in _ENGLISH for word in words)
    plain = all(mark.isascii() for mark in text if mark.isalpha())
    return "en" if common * 5 >= len(words) or (plain and (common * 10 >= len(words) or len(words) < 8)) else "latin"


def garbage_in(text: str) -> str | None:
    """Why a text is no text, as a sentence's part, or ``None``."""
    shown = text.strip()
    if not shown:
        return None
    if "\ufffd" in text or _MOJIBAKE.search(text):
        return "it was decoded wrongly: it has signs that stand for broken ones"
    if _CONTROL.search(text):
        return "it has control characters"
    if found := _REPEATED_MARK.search(shown):
        return f"it repeats {found[1]!r} {len(found[0])} times"
    if len(shown) >= 20 and sum(mark.isalnum() or mark.isspace() for mark in shown) < len(shown) / 2:
        return "more than half of it are signs, not letters"
    if sum(len(tag) for tag in _MARKUP.findall(text)) and len("".join(_MARKUP.split(text))) < len(text) / 2:
        return "more than half of it is markup"
    words = shown.split()
    if len(words) >= 20 and len(set(zip(words, words[1:], words[2:], strict=False))) < (len(words) - 2) / 3:
        return "it repeats itself"
    return None


def personal_in(text: str) -> list[tuple[str, str]]:
    """Kinds of personal data and where they were seen: email, phone, card, chinese_id, iban, ip."""
    found = [("email", each[0]) for each in _EMAIL.finditer(text)]
    taken = set()
    for each in _CHINESE_ID.finditer(text):
        if _is_chinese_id(each[0]):
            taken.add(each.start())
            found.append(("chinese_id", each[0]))
    cards = [each for each in _CARD.finditer(text) if each.start() not in taken and _is_card(each[0])]
    found += [("card", each[0]) for each in cards]
    found += [("iban", each[0]) for each in _IBAN.finditer(text) if _is_iban(each[0])]
    found += [("phone", each[0]) for each in _PHONE.finditer(text) if not _inside(each, cards)]
    found += [("ip", each[0]) for each in _ADDRESS.finditer(text)]
    return found


@cache
def _script(mark: str) -> str:
    name = unicodedata.name(mark, "")
    return next((code for code, start in _SCRIPTS if name.startswith(start)), "other")


def _inside(found: re.Match[str], others: list[re.Match[str]]) -> bool:
    return any(other.start() <= found.start() < other.end() for other in others)


def _is_card(text: str) -> bool:
    """By Luhn's sum (ISO/IEC 7812-1)."""
    digits = [int(mark) for mark in text if mark.isdigit()]
    return len(set(digits)) > 1 and sum(_doubled(digits)) % 10 == 0


def _doubled(digits: list[int]) -> Iterator[int]:
    for place, digit in enumerate(reversed(digits)):
        value = digit * (1 + place % 2)
        yield value - 9 if value > 9 else value


def _is_chinese_id(text: str) -> bool:
    """By its date and its last digit (GB 11643-1999)."""
    month, day = int(text[10:12]), int(text[12:14])
    total = sum(int(digit) * weight for digit, weight in zip(text[:17], _ID_WEIGHTS, strict=True))
    return 1 <= month <= 12 and 1 <= day <= 31 and "10X98765432"[total % 11] == text[17].upper()


def _is_iban(text: str) -> bool:
    """By its remainder (ISO 13616)."""
    plain = text.replace(" ", "")
    return int("".join(str(int(mark, 36)) for mark in plain[4:] + plain[:4])) % 97 == 1
