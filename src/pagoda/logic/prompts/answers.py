"""Finding the answer in what a model wrote, and the vote over several answers.

What cannot be found is ``None``, a value of its own: never an empty answer, never zero.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import orjson

from pagoda.core.types import Json
from pagoda.logic.prompts.prompt import Reading

_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+−]?\.\d+")
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_EDGES = " \t\r\n.。,，!！;；:：\"'“”‘’*_`()（）[]【】"


@dataclass(frozen=True, slots=True)
class Vote:
    """What several answers agree on."""

    answer: str | None
    """The most frequent one, of equally frequent ones the first; ``None``: there was no answer in any text."""
    votes: int
    samples: int
    unread: int
    """Texts in which no answer was found."""


def find_answer(reading: Reading | None, text: str, language: str, values: Mapping[str, Json]) -> str | None:
    """The answer in a text, in its plainest spelling; ``None`` when there is none."""
    if reading is None:
        return text.strip() or None
    part: str | None = _after(text, reading.after.get(language))
    if part is None:
        return None
    match reading.type:
        case "number":
            return last_number(part)
        case "choice":
            given = values.get(reading.choices_from) if reading.choices_from is not None else None
            return find_choice(part, reading.choices if given is None else [str(item) for item in given])
        case "json":
            return find_json(part)
    return part.strip() or None


def last_number(text: str) -> str | None:
    """The last number in a text, spelled plainly: ``1,250.50`` is ``1250.5``; full-width digits are digits."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    return plain_number(found[-1]) if found else None


def plain_number(text: str) -> str | None:
    """A number in its plainest spelling; ``None`` when the text is no number."""
    try:
        value = Decimal(text.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None
    return format(value.normalize(), "f") if value else "0"


def find_choice(text: str, choices: Sequence[str]) -> str | None:
    """The one of ``choices`` that a text names: as its whole, else as the only one that stands in it."""
    folded = {_folded(choice): choice for choice in choices}
    whole = _folded(text).strip(_EDGES)
    if whole in folded:
        return folded[whole]
    low = _folded(text)
    named = {choice for word, choice in folded.items() if word and _stands(word, low)}
    longest = {each for each in named if not any(each != other and _folded(each) in _folded(other) for other in named)}
    return longest.pop() if len(longest) == 1 else None


def find_json(text: str) -> str | None:
    """The JSON in a text, bare or in a fence, written compactly; ``None`` when there is none."""
    inner = _FENCE.search(text)
    try:
        return orjson.dumps(orjson.loads(inner[1] if inner else text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return None


def vote(answers: Sequence[str | None]) -> Vote:
    """The most frequent of the answers."""
    counted = Counter(answer for answer in answers if answer is not None)
    unread = sum(answer is None for answer in answers)
    if not counted:
        return Vote(None, 0, len(answers), unread)
    answer, votes = counted.most_common(1)[0]
    return Vote(answer, votes, len(answers), unread)


def _after(text: str, mark: str | None) -> str | None:
    if mark is None:
        return text
    plain, sought = unicodedata.normalize("NFKC", text), unicodedata.normalize("NFKC", mark)  # '：' and ':' are one
    place = plain.lower().rfind(sought.lower())
    return None if place < 0 else plain[place + len(sought) :]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _stands(word: str, text: str) -> bool:
    """Whether a word stands in a text: as a word of its own where spaces part words, anywhere else."""
    before = r"(?<!\w)" if word[0].isascii() and word[0].isalnum() else ""
    behind = r"(?!\w)" if word[-1].isascii() and word[-1].isalnum() else ""
    return re.search((before + re.escape(word) + behind), text, re.ASCII) is not None
