"""The four sets as tables of signals: what the product's own code makes of what was collected.

Every item of fitting is judged by a judge that was fitted without its fold, so that nothing is fitted on scores that
know their own labels.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.trust.collect import CALL, Heard, read, subject_of
from benchmarks.trust.pairs import turned
from benchmarks.trust.precedents import fitted
from benchmarks.trust.sets import SETS, Item, fold, items
from pagoda.application.client import home_door
from pagoda.core.configuration import load_settings
from pagoda.logic.trust.calibration import fit_logistic
from pagoda.logic.trust.checking import Checked
from pagoda.logic.trust.claims import split_claims
from pagoda.logic.trust.combination import features_of
from pagoda.logic.trust.consistency import compare, read_samples
from pagoda.logic.trust.contradictions import contradictions
from pagoda.logic.trust.evidence import FEATURES, Evidence, Library
from pagoda.logic.trust.judging import LocalJudge, LocalWeights
from pagoda.logic.trust.likelihood import read_tokens
from pagoda.logic.trust.scoring import read_claims
from pagoda.logic.trust.subject import Family, Signal, Source, Subject, unavailable

JUDGE_L2 = 10.0
"""Its features go together, so that without a penalty they would take large weights against one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A labelled item with its signals."""

    item: Item
    subject: Subject
    label: bool
    signals: tuple[Signal, ...]
    precedent: float
    """Log-odds by a classifier that has not seen the item."""

    @property
    def families(self) -> tuple[Family, ...]:
        """Those that could be had."""
        return tuple(signal.family for signal in self.signals if signal.value is not None)

    def features(self) -> dict[str, float]:
        """As the combination sees it."""
        return features_of(self.subject, self.signals) | {"precedent": self.precedent}


@dataclass(frozen=True, slots=True)
class Looked:
    """The claims of an item with their evidence."""

    item: Item
    evidence: tuple[tuple[str, Evidence], ...]


@cache
def look(item: Item, context: str | None = None) -> Looked:
    """The evidence of each claim of an item, in its own context or another."""
    library = Library([Source(name=item.id, text=item.context if context is None else context)])
    claims = [claim for claim in split_claims(item.answer) if claim.checkable]
    return Looked(item, tuple((claim.text, library.look_up(claim.text, item.question)) for claim in claims))


def reordered(pairs: Sequence[Item]) -> list[Looked]:
    """The members of pairs said in another order."""
    return [look(replace(item, answer=turned(item.answer))) for item in pairs]


def strangers(pairs: Sequence[Item]) -> list[Looked]:
    """True claims held against another text of the same language: nothing is found there."""
    found = []
    for chinese in (False, True):
        same = [item for item in pairs if item.label and item.id.startswith("TRIAL") == chinese]
        for one, other in zip(same, [*same[1:], *same[:1]], strict=True):
            if one.even == other.even:
                found.append(look(one, other.context))
    return found


def fit_judge(own: Sequence[Looked], foreign: Sequence[Looked], leave_out: int | None = None) -> LocalWeights:
    """The two regressions of the local judge on items of the even half; ``leave_out``: without this fold."""

    def rows(looked: Sequence[Looked]) -> list[tuple[Looked, Mapping[str, float]]]:
        return [
            (each, evidence.features)
            for each in looked
            if each.item.even and fold(each.item.id) != leave_out
            for _, evidence in each.evidence
        ]

    mine, theirs = rows(own), rows(foreign)
    supported = fit_logistic(
        FEATURES,
        [features for _, features in (*mine, *theirs)],
        np.array([bool(each.item.label) for each, _ in mine] + [False] * len(theirs)),
        JUDGE_L2,
    )
    altered = [features for each, features in mine if each.item.set == "pairs" and not each.item.label]
    if not altered or not theirs:
        return LocalWeights(supported=supported, contradicted=supported)
    unsupported = [*altered, *(features for _, features in theirs)]
    labels = np.array([True] * len(altered) + [False] * len(theirs))
    contradicted = fit_logistic(FEATURES, unsupported, labels, JUDGE_L2)
    return LocalWeights(supported=supported, contradicted=contradicted)


def factuality(looked: Looked, weights: LocalWeights) -> Signal:
    """As the product reads it."""
    judge = LocalJudge(weights)
    claims = [claim for claim in split_claims(looked.item.answer) if claim.checkable]
    judged = [judge.read(evidence) for _, evidence in looked.evidence]
    if not looked.item.context:
        return unavailable("factuality", "there are no sources")
    return read_claims([Checked(claim=claim, judgement=each) for claim, each in zip(claims, judged, strict=True)])


def is_right(answer: str, aliases: Sequence[str]) -> bool:
    """Whether an answer contains an accepted one, both without case, articles and punctuation."""

    def plain(text: str) -> str:
        words = re.sub(f"[{re.escape(string.punctuation)}]", " ", text.lower()).split()
        return f" {' '.join(word for word in words if word not in ('a', 'an', 'the'))} "

    return any(plain(alias).strip() and plain(alias) in plain(answer) for alias in aliases)


def heard_items(heard: Mapping[str, Heard]) -> list[tuple[Item, Heard]]:
    """All items that were asked about, with what was said; the model's own answers are labelled here."""
    found = []
    for name in SETS:
        for item in items(name):
            said = heard.get(item.key)
            if said is not None and said.answer.strip():
                label = is_right(said.answer, item.aliases) if item.label is None else item.label
                found.append((replace(item, answer=said.answer, label=label), said))
    return found


async def consistencies(known: Sequence[tuple[Item, Heard]], path: Path) -> dict[str, Signal]:
    """The consistency of each item; embeddings are asked once and the signals kept."""
    kept: dict[str, Signal] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                kept[row["key"]] = Signal(family="consistency", value=row["value"], features=row["features"])
    settings = load_settings({}, os.environ, Path("/"))
    async with home_door(settings, os.environ) as door:
        for item, said in known:
            if item.key in kept:
                continue
            meanings = await compare([said.answer, *said.samples], item.question, door, CALL)
            signal = read_samples(meanings, len(contradictions(said.answer)))
            kept[item.key] = signal
            with path.open("a", encoding="utf-8") as file:
                row = {"key": item.key, "value": signal.value, "features": dict(signal.features)}
                file.write(json.dumps(row) + "\n")
    return kept


def signals_of(known: Sequence[tuple[Item, Heard]], folder: Path) -> dict[str, tuple[Signal, Signal]]:
    """Token probability and consistency of each item."""
    agreed = asyncio.run(consistencies(known, folder / "consistency.jsonl"))
    return {item.key: (read_tokens(said.logprobs(), "score"), agreed[item.key]) for item, said in known}


def rows_of(
    known: Sequence[tuple[Item, Heard]],
    other: Mapping[str, tuple[Signal, Signal]],
    judges: Mapping[int | None, LocalWeights],
) -> list[Row]:
    """The table: what was asked about, and the other items with what needs no model.

    ``judges``: by the fold that each was fitted without; ``None`` for the odd half.
    """
    asked = {item.key for item, _ in known}
    unasked = (unavailable("token_probability", "not asked"), unavailable("consistency", "not asked"))
    every = [item for item, _ in known]
    every += [item for name in SETS for item in items(name) if item.answer and item.key not in asked]
    rows = []
    for item in every:
        left_out = fold(item.id) if item.even else None
        signals = (*other.get(item.key, unasked), factuality(look(item), judges[left_out]))
        odds = 0.0 if item.context else fitted(left_out).odds(item.question, item.answer)
        subject = subject_of(item, item.answer, "")
        rows.append(Row(item=item, subject=subject, label=bool(item.label), signals=signals, precedent=odds))
    return rows


def load(folder: Path) -> list[tuple[Item, Heard]]:
    """What was collected."""
    return heard_items(read(folder / "heard.jsonl"))
