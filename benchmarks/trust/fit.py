"""The coefficients that come with Pagoda, fitted on the even half of what was collected, and their cards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.precedents import best_penalty, fitted
from benchmarks.trust.sets import FOLDS, fold, items
from benchmarks.trust.table import (
    Looked,
    Row,
    fit_judge,
    load,
    look,
    reordered,
    rows_of,
    signals_of,
    strangers,
)
from pagoda.logic.trust.calibration import Labels, Logistic, Values, fit_logistic
from pagoda.logic.trust.combination import Scale, scale_name
from pagoda.logic.trust.judging import LocalWeights
from pagoda.logic.trust.subject import FAMILIES, Family

FAMILY_FEATURES: Mapping[str, tuple[str, ...]] = {
    "token_probability": ("mean_logprob", "least_logprob"),
    "consistency": ("agreement", "shared"),
    "factuality": ("mean_support", "least_odds", "near_question", "ordered_pairs", "kind_fit", "novelty"),
}
FORM = ("log_length", "precedent")
"""Looked at only where there are no sources: with them, length mostly tells how a set was made."""
RISING = frozenset(("mean_logprob", "least_logprob", "agreement", "shared", "mean_support", "least_odds")) | {
    "near_question",
    "ordered_pairs",
}
"""Features of which more never speaks against an answer, whatever a few dozen items say."""
COUNTS = {"qa": 1.0, "pairs": 1.0, "own": 2.0, "general": 1.0}
"""How much each set counts: what a model really answered as much as both sets that were made."""
L2 = 10.0
LEAST_SLOPE = 0.1
"""Of a calibration: it may flatten what a regression says, not turn it round."""
WEIGHTS = Path(__file__).resolve().parents[2] / "src" / "pagoda" / "logic" / "trust" / "weights"
MODELS = (
    "token probabilities and samples: smollm2-135m-instruct (its checkpoint in bfloat16); "
    "meanings: multilingual-e5-small"
)


def subsets() -> list[tuple[tuple[Family, ...], bool]]:
    """All sets of families that an answer may have, and whether there are sources."""
    every = [chosen for size in (1, 2, 3) for chosen in combinations(FAMILIES, size)]
    return [(chosen, sourced) for chosen in every for sourced in (True, False) if sourced or "factuality" not in chosen]


def names_of(families: Sequence[Family], *, sourced: bool) -> tuple[str, ...]:
    """The features of a set of families."""
    own = tuple(name for family in families for name in FAMILY_FEATURES[family])
    return own if sourced else (*own, *FORM)


def fit_scale(rows: Sequence[Row], families: Sequence[Family], *, sourced: bool) -> Scale:
    """A regression, and the calibration of what it says of items that it was not fitted on (by folds).

    Each set counts by ``COUNTS``, however many items it has. Items about which no model was asked teach what needs
    none; their other features stand at the mean of the rest, and so teach nothing there.
    """
    names = names_of(families, sourced=sourced)
    features, labels = [row.features() for row in rows], np.array([row.label for row in rows])
    sizes = Counter(row.item.set for row in rows)
    whole = sum(COUNTS[name] for name in sizes)
    shares = np.array([len(rows) * COUNTS[row.item.set] / whole / sizes[row.item.set] for row in rows])
    folds = np.array([fold(row.item.id) for row in rows])
    unseen = np.zeros(len(rows))
    for part in range(FOLDS):
        rest, here = np.flatnonzero(folds != part), np.flatnonzero(folds == part)
        regression = _rising(names, [features[at] for at in rest], labels[rest], shares[rest])
        means = dict(zip(regression.names, regression.center, strict=True))
        unseen[here] = [regression.logit(means | features[at]) for at in here]
    platt = fit_logistic(("logit",), [{"logit": value} for value in unseen], labels, 0.1, shares)
    slope = max(platt.weights[0] / platt.scale[0], LEAST_SLOPE)
    return Scale(
        regression=_rising(names, features, labels, shares),
        slope=slope,
        offset=platt.bias - slope * platt.center[0],
    )


def _rising(names: Sequence[str], features: Sequence[Mapping[str, float]], labels: Labels, shares: Values) -> Logistic:
    """The regression without those rising features that would fall in it, the one that falls most left out first."""
    while True:
        found = fit_logistic(names, features, labels, L2, shares)
        weight, falling = min(
            ((weight, name) for name, weight in zip(found.names, found.weights, strict=True) if name in RISING),
            default=(0.0, ""),
        )
        if weight >= 0:
            return found
        names = [name for name in names if name != falling]


def fitting(rows: Sequence[Row], families: Sequence[Family], *, sourced: bool) -> list[Row]:
    """The rows on which a set of families is fitted: of those with sources, or without, such as it speaks of."""
    telling = {"factuality"} if "factuality" in families else set(families)
    return [
        row
        for row in rows
        if bool(row.item.context) == sourced and (not sourced or not telling.isdisjoint(row.families))
    ]


def fit_scales(rows: Sequence[Row]) -> dict[str, Scale]:
    """A scale for each set of families that there can be among some rows."""
    there = {family for row in rows for family in row.families}
    found = {}
    for families, sourced in subsets():
        chosen = fitting(rows, families, sourced=sourced)
        if set(families) <= there and len({row.label for row in chosen}) == 2:
            found[scale_name(families, sourced=sourced)] = fit_scale(chosen, families, sourced=sourced)
    return found


@cache
def looks(name: str) -> list[Looked]:
    """All items of a set with sources and given answers, with their evidence."""
    return [look(item) for item in items(name)]


@cache
def judges_of() -> dict[int | None, LocalWeights]:
    """The judge, and those that were each fitted without a fold."""
    pairs = items("pairs")
    own, foreign = [*looks("qa"), *looks("pairs"), *reordered(pairs)], strangers(pairs)
    return {part: fit_judge(own, foreign, part) for part in (*range(FOLDS), None)}


def table(folder: Path, judges: Mapping[int | None, LocalWeights]) -> list[Row]:
    """All that was collected."""
    known = load(folder)
    return rows_of(known, signals_of(known, folder), judges)


def write(folder: Path, say: Callable[[str], None] = print) -> None:
    """Fit everything and put it into the package."""
    judges = judges_of()
    whole = judges[None]
    card = {
        "what": "the local judge of claims: logistic regressions on the numbers of pagoda.logic.trust.evidence",
        "data": "HaluEval QA (MIT), minimal pairs from Natural Questions open book (CC BY-SA 3.0) and CMRC 2018 "
        "(CC BY-SA 4.0), and their claims against other texts; items whose SHA-256 is even",
        "figures": "docs/benchmarks.md, Trust",
        "rebuild": "python -m benchmarks.trust FOLDER fit",
    }
    kept = {"supported": whole.supported.to_json(), "contradicted": whole.contradicted.to_json()}
    _keep("judge-1.json", {"version": 1, "card": card, **kept})
    whole_precedent = fitted()
    card = {
        "what": "how often answers like this were right: a linear classifier on hashed words (logic.trust.precedent)",
        "data": "HaluEval general (MIT): answers of ChatGPT in English, judged by people; items whose SHA-256 is even",
        "fit": f"scikit-learn, logistic regression, C={best_penalty()}, chosen by folds of the even half",
        "figures": "docs/benchmarks.md, Trust",
        "rebuild": "python -m benchmarks.trust FOLDER fit",
    }
    weights = [round(1000 * weight) for weight in whole_precedent.weights]
    text = json.dumps({"version": 1, "card": card, "bias": round(whole_precedent.bias, 6), "weights": weights})
    (WEIGHTS / "precedent-1.json").write_text(text + "\n", encoding="utf-8")
    even = [row for row in table(folder, judges) if row.item.even]
    scales: dict[str, Any] = {}
    for families, sourced in subsets():
        chosen, name = fitting(even, families, sourced=sourced), scale_name(families, sourced=sourced)
        scales[name] = fit_scale(chosen, families, sourced=sourced).to_json() | {"items": len(chosen)}
        say(f"{name}: {len(chosen)} items")
    card = {
        "what": "the calibrated confidence of answers: a regression and its calibration for each set of families",
        "data": "with sources HaluEval QA, minimal pairs from Natural Questions and CMRC 2018, and answers of "
        "smollm2-135m-instruct to Natural Questions; without, HaluEval general (MIT); items whose SHA-256 is even",
        "models": MODELS,
        "figures": "docs/benchmarks.md, Trust",
        "rebuild": "python -m benchmarks.trust FOLDER collect fit",
    }
    _keep("confidence-1.json", {"version": 1, "card": card, "scales": scales})


def _keep(name: str, value: Mapping[str, Any]) -> None:
    (WEIGHTS / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
