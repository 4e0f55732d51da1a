"""Rows taken out of a set, each with its reason; what stays is as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.model.data.quality import language_of
from pagoda.model.data.reading import DataSet
from pagoda.model.data.report import REMOVING, Fault, Finding, look_at, repeats_in
from pagoda.model.data.rows import Row

REASONS = (*REMOVING, "personal", "language", "too_short", "too_long")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a row must be to stay."""

    remove: Collection[str] = REMOVING
    """Reasons of ``report`` that remove a row."""
    least: int = 0
    """Characters."""
    most: int = 0
    """Characters; 0: any."""
    languages: Collection[str] = ()
    """As ``language_of`` names them; none: any."""
    threshold: float = 0.8

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.remove) - set(REASONS)):
            raise InvalidRequest(f"There is no reason {unknown[0]!r} to remove a row; there are {', '.join(REASONS)}.")


@dataclass(frozen=True, slots=True)
class Filtered:
    """What stays, and what was removed with the reason that came first."""

    kept: tuple[Row, ...]
    removed: tuple[Mapping[str, Any], ...]
    reasons: dict[str, int]


def filter_rows(
    data: DataSet, wanted: Wanted, *, against: DataSet | None = None, fault: Fault | None = None
) -> Filtered:
    """Take out what is not wanted. ``fault`` is what the model that is to be trained has against a row."""
    # What could not be read cannot stay, whatever is asked for.
    faults = {each.number: Finding(each.number, each.reason, each.why) for each in data.refused}
    faults |= {row.number: found for row in data.rows if (found := _found(row, wanted, fault)) is not None}
    left = [row for row in data.rows if row.number not in faults]
    for finding in repeats_in(left, data.source, against, wanted.threshold):
        if finding.reason in wanted.remove:
            faults.setdefault(finding.row, finding)
    contents: dict[int, Any] = {each.number: each.content for each in data.refused}
    contents |= {row.number: dict(row.content) for row in data.rows}
    removed = tuple(
        {"row": number, "reason": faults[number].reason, "why": faults[number].why, "content": contents[number]}
        for number in sorted(faults)
    )
    kept = tuple(row for row in left if row.number not in faults)
    return Filtered(kept, removed, dict(Counter(each["reason"] for each in removed).most_common()))


def _found(row: Row, wanted: Wanted, fault: Fault | None) -> Finding | None:
    """Why a row goes, by itself."""
    return next((each for each in look_at(row, fault) if each.reason in wanted.remove), None) or _unwanted(row, wanted)


def _unwanted(row: Row, wanted: Wanted) -> Finding | None:
    length = len(row.text)
    if length < wanted.least:
        return Finding(row.number, "too_short", f"it has {length} characters, fewer than {wanted.least}")
    if wanted.most and length > wanted.most:
        return Finding(row.number, "too_long", f"it has {length} characters, more than {wanted.most}")
    if wanted.languages and (language := language_of(row.text)) not in wanted.languages:
        return Finding(row.number, "language", f"its language is {language}")
    return None
