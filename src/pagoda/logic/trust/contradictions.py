"""Where a text contradicts itself or another: two claims of the same words of which one detail differs, or is denied.

Strict on purpose: a pair counts only if it speaks of the same subject in mostly the same words and exactly one kind of
detail stands against it. What is said in quite different words is left to judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagoda.logic.trust.claims import Claim, split_claims
from pagoda.logic.trust.details import denials, details
from pagoda.logic.trust.evidence import content, tokens

_SAME_WORDS = 0.7  # of the shorter claim's words without its details
_MOST_CLAIMS = 60  # that are held against one another
_LEAST_WORDS = 2


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two claims that cannot both hold, and what stands against what."""

    claim: Claim
    """Of the text that was looked at."""
    other: Claim
    within: bool
    """Whether the other one stands in the same text."""
    why: str


def contradictions(answer: str, earlier: Sequence[str] = ()) -> list[Contradiction]:
    """All contradictions of an answer: in itself, and with each of some earlier ones."""
    said = _claims(answer)
    pairs = [(later, before, True) for at, later in enumerate(said) for before in said[:at]]
    pairs += [(claim, before, False) for turn in earlier for before in _claims(turn) for claim in said]
    return [
        Contradiction(claim, before, within, why)
        for (claim, parts), (before, others), within in pairs
        if (why := _conflict(parts, others)) is not None
    ]


def _claims(text: str) -> list[tuple[Claim, Parts]]:
    return [(claim, Parts(claim.text)) for claim in split_claims(text, _MOST_CLAIMS) if claim.checkable]


def _conflict(left: Parts, right: Parts) -> str | None:
    """What stands against what in two claims of the same words; ``None``: nothing."""
    shorter, both = min(len(left.plain), len(right.plain)), left.plain & right.plain
    alike = len(both) + len(left.names & right.names) + len(left.numbers & right.numbers)
    if left.frame != right.frame and (alike < _LEAST_WORDS or not both or len(both) < _SAME_WORDS * shorter):
        return None
    if left.names and right.names and not left.names & right.names and left.first != right.first:
        return None  # they speak of different subjects
    same_names = left.names <= right.names or right.names <= left.names
    if left.denied != right.denied:
        same = same_names and (left.numbers <= right.numbers or right.numbers <= left.numbers)
        return "one denies what the other says" if same and left.first == right.first else None
    if left.first != right.first:
        return None
    if same_names and _numbers_against(left.numbers, right.numbers):
        return f"{_listed(left.numbers - right.numbers)} against {_listed(right.numbers - left.numbers)}"
    only_left, only_right = left.names - right.names, right.names - left.names
    if only_left and only_right and left.numbers == right.numbers and len(left.plain ^ right.plain) <= 1:
        return f"{_listed(only_left)} against {_listed(only_right)}"
    return None


def _numbers_against(left: set[str], right: set[str]) -> bool:
    """Whether one number stands against another. Of several, a year may tell two cases apart, which is no clash."""
    if len(left) != len(right) or len(left - right) != 1:
        return False
    [odd], shared = left - right, left & right
    return not shared or (not _is_year(odd) and (not odd.isdigit() or any(_is_year(each) for each in shared)))


def _is_year(value: str) -> bool:
    return len(value) == 4 and value.isdigit() and 1000 <= int(value) <= 2100


def differ(left: Parts, right: Parts) -> bool:
    """Whether two answers to one question differ in a number, a date or a denial, so that they do not mean the same."""
    if left.numbers and right.numbers and not left.numbers & right.numbers:
        return True
    return left.denied != right.denied


class Parts:
    """A text taken apart, once for all that it is held against."""

    def __init__(self, text: str) -> None:
        found = details(text)
        words = content(text)
        self.numbers = {each.value for each in found if each.kind != "name"}
        self.names = {each.value for each in found if each.kind == "name"}
        numeric = {word for each in found if each.kind != "name" for word in content(text[each.start : each.end])}
        named = {word for name in self.names for word in content(name)}
        self.plain = set(words) - numeric - named
        self.frame = [word for word in tokens(text) if word not in numeric] if len(words) > len(numeric) else [text]
        """All its words but its numbers, in order."""
        self.first = words[0] if words else ""
        self.denied = denials(text) % 2 == 1


def _listed(values: set[str]) -> str:
    return ", ".join(sorted(values))[:200]
