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
RISING = frozenset(("mean_logprob", "least_logprob", "agreement", "shared", "mean_support", "least_odds"))
"""Features of which more never speaks against an answer, whatever a few dozen items say."""
L2 = 10.0
LEAST_SLOPE = 0.1
"""Of a calibration: it may flatten what a regression says, not turn it round."""
WEIGHTS = Path(__file__).resolve().parents[2] / "src" / "pagoda" / "logic" / "trust" / "weights"
MODELS = "token probabilities and samples: smollm2-135m-instruct (Q4_1); meanings: multilingual-e5-small"


def subsets() -> list[tuple[Family, ...]]:
    """All sets of families that an answer may have."""
    return [chosen for size in (1, 2, 3) for chosen in combinations(FAMILIES, size)]


def names_of(families: Sequence[Family]) -> tuple[str, ...]:
    """The features of a set of families."""
    own = tuple(name for family in families for name in FAMILY_FEATURES[family])
    return own if "factuality" in families else (*own, *FORM)


def fit_scale(rows: Sequence[Row], families: Sequence[Family]) -> Scale:
    """A regression, and the calibration of what it says of items that it was not fitted on (by folds).

    Each set counts alike. Items about which no model was asked teach what needs none; their other features stand at
    the mean of the rest, and so teach nothing there.
    """
    names = names_of(families)
    features, labels = [row.features() for row in rows], np.array([row.label for row in rows])
    sizes = Counter(row.item.set for row in rows)
    shares = np.array([len(rows) / len(sizes) / sizes[row.item.set] for row in rows])
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


def fitting(rows: Sequence[Row], families: Sequence[Family]) -> list[Row]:
    """The rows on which a set of families is fitted: those with sources, or those without."""
    sourced = "factuality" in families
    return [row for row in rows if sourced == ("factuality" in row.families) and (sourced or not row.item.context)]


def fit_scales(rows: Sequence[Row]) -> dict[str, Scale]:
    """A scale for each set of families that there can be among some rows."""
    there = {family for row in rows for family in row.families}
    found = {}
    for families in subsets():
        chosen = fitting(rows, families)
        if set(families) <= there and len({row.label for row in chosen}) == 2:
            found[scale_name(families)] = fit_scale(chosen, families)
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
    rows = table(folder, judges)
    scales: dict[str, Any] = {}
    for families in subsets():
        chosen = fitting([row for row in rows if row.item.even], families)
        scales[scale_name(families)] = fit_scale(chosen, families).to_json() | {"items": len(chosen)}
        say(f"{scale_name(families)}: {len(chosen)} items")
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
