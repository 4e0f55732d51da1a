"""The report on a set of rows: how many, how long, which repeat, in what language, and what is wrong with which row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pagoda.core.types import Json
from pagoda.model.data.duplicates import Match, find_duplicates
from pagoda.model.data.quality import garbage_in, language_of, personal_in
from pagoda.model.data.reading import DataSet
from pagoda.model.data.rows import Row, conversation_fault

Count = Callable[[str], int]
"""How many tokens a text has."""
Fault = Callable[[Row], str | None]
"""What a model has against a row, as a sentence's part."""

_BINS = 10
_SHARES = (5, 25, 50, 75, 95, 99)
REMOVING = (
    "unreadable",
    "form",
    "type",
    "empty",
    "template",
    "duplicate",
    "label_conflict",
    "near_duplicate",
    "leak",
    "garbage",
)
"""Reasons for which ``pagoda data filter`` removes a row unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long texts are."""

    least: int
    mean: float
    most: int
    percentiles: dict[str, float]
    histogram: tuple[tuple[int, int, int], ...]
    """From, to (included), how many."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one row: ``reason`` is a word for programs, ``why`` a sentence's part."""

    row: int
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a set."""

    source: str
    form: str | None
    rows: int
    usable: int
    """Rows that could be read in the set's form."""
    characters: Lengths | None
    tokens: Lengths | None
    """Where a tokenizer was given."""
    languages: dict[str, int]
    labels: dict[str, int]
    imbalance: float | None
    """The commonest label's count over the rarest one's."""
    reasons: dict[str, int]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return asdict(self)


def check(
    data: DataSet,
    *,
    against: DataSet | None = None,
    count: Count | None = None,
    fault: Fault | None = None,
    threshold: float = 0.8,
) -> Report:
    """Look at every row. ``against`` is a set whose rows must not be in this one, such as a test set; ``count`` and
    ``fault`` are those of the model that is to be trained."""
    looked = {row.number: list(look_at(row, fault)) for row in data.rows}
    sound = [row for row in data.rows if not any(each.reason in REMOVING for each in looked[row.number])]
    findings = [Finding(each.number, each.reason, each.why) for each in data.refused]
    findings += [each for found in looked.values() for each in found]
    findings += repeats_in(sound, data.source, against, threshold)
    findings.sort(key=lambda each: each.row)
    labels = Counter(row.label for row in data.rows if row.label is not None)
    return Report(
        source=data.source,
        form=data.form,
        rows=data.count,
        usable=len(data.rows),
        characters=lengths_of([len(row.text) for row in data.rows]),
        tokens=lengths_of([count(row.text) for row in data.rows]) if count else None,
        languages=dict(Counter(language_of(row.text) for row in data.rows).most_common()),
        labels=dict(labels.most_common()),
        imbalance=max(labels.values()) / min(labels.values()) if labels else None,
        reasons=dict(Counter(each.reason for each in findings).most_common()),
        findings=tuple(findings),
    )


def look_at(row: Row, fault: Fault | None = None) -> Iterator[Finding]:
    """What is wrong with one row, by itself, and with the model that has a ``fault``."""
    if not row.text.strip():
        yield Finding(row.number, "empty", "it has no text")
        return
    for name in ("completion", "chosen", "rejected"):
        value = row.content.get(name)
        if row.form in ("completion", "preference") and isinstance(value, str) and not value.strip():
            yield Finding(row.number, "empty", f"its {name} is empty")
    if row.form == "preference" and row.content["chosen"] == row.content["rejected"]:
        yield Finding(row.number, "template", "chosen and rejected are the same")
    broken = conversation_fault(row.content["messages"]) if row.form == "chat" else None
    if broken := broken or (fault(row) if fault is not None else None):
        yield Finding(row.number, "template", broken)
    if garbage := garbage_in(row.text):
        yield Finding(row.number, "garbage", garbage)
    kinds = Counter(kind for kind, _ in personal_in(row.text))
    if kinds:
        told = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        yield Finding(row.number, "personal", f"it holds personal data: {told}")


def repeats_in(rows: Sequence[Row], source: str, against: DataSet | None, threshold: float) -> list[Finding]:
    """Those of ``rows`` that repeat an earlier one, or one of ``against``.

    Rows that go for a reason of their own must not be among them: what repeats such a one would go with it, and
    nothing of both would be left.
    """
    filled = [row for row in rows if row.text.strip()]
    matches = find_duplicates(filled, against=against.rows if against else (), threshold=threshold)[1]
    return [_finding_of(match, source) for match in matches]


def _finding_of(match: Match, source: str) -> Finding:
    """A match as a finding, its partner named."""
    other = match.partner
    where = f"row {other.number}" if other.source == source else f"row {other.number} of {other.source}"
    if other.source == source and match.contradicts:
        told = f"it is the same as {where}, but its label is {match.row.label} and not {other.label}"
        return Finding(match.row.number, "label_conflict", told)
    reason = "leak" if other.source != source else "duplicate" if match.exact else "near_duplicate"
    same = "is the same as" if match.exact else f"is {match.similarity:.0%} the same as"
    return Finding(match.row.number, reason, f"it {same} {where}")


def lengths_of(values: Sequence[int]) -> Lengths | None:
    """Statistics; ``None`` of nothing."""
    if not values:
        return None
    numbers = np.asarray(values)
    counts, edges = np.histogram(numbers, bins=_BINS)
    bounds = np.ceil(edges).astype(int)
    rows: list[tuple[int, int, int]] = []
    for place, number in enumerate(counts.tolist()):
        upper = int(bounds[place + 1]) - (place < _BINS - 1)
        rows.append((int(bounds[place]), max(upper, int(bounds[place])), number))
    shares: dict[str, Any] = {
        f"p{share}": float(value) for share, value in zip(_SHARES, np.percentile(numbers, _SHARES), strict=True)
    }
    return Lengths(int(numbers.min()), float(numbers.mean()), int(numbers.max()), shares, tuple(rows))
