"""The figures of trust on the odd halves: each signal, their plain mean, and the calibrated combination."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.trust.fit import fit_scales
from benchmarks.trust.precedents import fitted
from benchmarks.trust.sets import SETS, items
from benchmarks.trust.table import Looked, Row, factuality
from pagoda.logic.trust.calibration import Bin, auroc, expected_calibration_error, fit_logistic, reliability, sigmoid
from pagoda.logic.trust.combination import Scale, combine, scales
from pagoda.logic.trust.judging import LocalWeights
from pagoda.logic.trust.subject import FAMILIES, Family, Signal

DRAWS = 200
Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Figure:
    """How good one way of scoring is on one set."""

    way: str
    set: str
    items: int
    right: int
    auroc: float | None
    low: float | None
    high: float | None
    ece: float
    chance: float = 0.0
    """The error that scores of these values would show on so many items if they meant exactly what they say."""

    @property
    def area(self) -> str:
        """The area with its interval, as people read it."""
        return "-" if self.auroc is None else f"{self.auroc:.3f} ({self.low:.3f}-{self.high:.3f})"

    def line(self) -> str:
        """A row of the table."""
        begin = f"| {self.way} | {self.set} | {self.items} ({self.right}) | {self.area}"
        return f"{begin} | {self.ece:.3f} | {self.chance:.3f} |"


def measure(way: str, name: str, scores: Scores, labels: Labels) -> Figure:
    """The figure of scores with labels."""
    area = auroc(scores, labels)
    ece, chance = expected_calibration_error(scores, labels), by_chance(scores)
    if area is None:
        return Figure(way, name, len(labels), int(labels.sum()), None, None, None, ece, chance)
    return Figure(way, name, len(labels), int(labels.sum()), area.value, area.low, area.high, ece, chance)


def by_chance(scores: Scores) -> float:
    """The mean calibration error of labels drawn by the scores themselves: what no calibration gets below."""
    draws = np.random.default_rng(1).random((DRAWS, len(scores))) < scores
    return float(np.mean([expected_calibration_error(scores, labels) for labels in draws]))


def of_set(rows: Sequence[Row], name: str, *, even: bool) -> list[Row]:
    """One half of a set; of the odd one what models were asked about."""
    return [row for row in rows if row.item.set == name and row.item.even == even and (even or _asked(row))]


def _asked(row: Row) -> bool:
    return "token_probability" in row.families


def _value(signals: Sequence[Signal], family: Family) -> float | None:
    return next(signal.value for signal in signals if signal.family == family)


def mean_of(row: Row) -> float:
    """The plain mean of what there is."""
    return float(np.mean([signal.value for signal in row.signals if signal.value is not None]))


def chances(among: Mapping[str, Scale], rows: Sequence[Row]) -> tuple[Scores, Labels]:
    """What scales say of those rows that they can judge, and the labels of these."""
    found = [(combine(row.subject, row.signals, among).value, row.label) for row in rows]
    judged = [(value, label) for value, label in found if value is not None]
    return np.array([value for value, _ in judged]), np.array([label for _, label in judged])


def uncalibrated(among: Mapping[str, Scale]) -> dict[str, Scale]:
    """The regressions alone."""
    return {name: Scale(regression=scale.regression) for name, scale in among.items()}


def calibrated_mean(fit: Sequence[Row]) -> Callable[[Sequence[Row]], Scores]:
    """The plain mean after Platt's scaling on another half."""
    asked = [row for row in fit if _asked(row)]
    platt = fit_logistic(("mean",), [{"mean": mean_of(row)} for row in asked], labels_of(asked), 0.1)
    return lambda rows: np.array([platt.probability({"mean": mean_of(row)}) for row in rows])


def labels_of(rows: Sequence[Row]) -> Labels:
    """Which are right."""
    return np.array([row.label for row in rows])


def figures(rows: Sequence[Row]) -> list[Figure]:
    """All ways on the odd halves, fitted on the even ones."""
    found: list[Figure] = []
    for name in SETS:
        fit, test = of_set(rows, name, even=True), of_set(rows, name, even=False)
        for family in FAMILIES:
            having = [row for row in test if family in row.families]
            if having:
                values = np.array([_value(row.signals, family) for row in having], dtype=np.float64)
                found.append(measure(family.replace("_", " "), name, values, labels_of(having)))
        means = np.array([mean_of(row) for row in test])
        found.append(measure("plain mean", name, means, labels_of(test)))
        found.append(measure("plain mean, calibrated on this set", name, calibrated_mean(fit)(test), labels_of(test)))
        own = fit_scales(fit)
        found.append(measure("combination, before calibration", name, *chances(uncalibrated(own), test)))
        found.append(measure("combination fitted on this set", name, *chances(own, test)))
        found.append(measure("combination that ships", name, *chances(scales(), test)))
        rest = [row for row in rows if row.item.set == name and not row.item.even and row.families == ("factuality",)]
        if rest:
            found.append(measure("factuality alone, calibrated on this set", name, *chances(own, rest)))
            found.append(measure("factuality alone, as it ships", name, *chances(scales(), rest)))
    return found


def transferred(rows: Sequence[Row]) -> list[Figure]:
    """Judge and combination fitted on HaluEval QA alone, tested where they have never been. ``rows`` by that judge."""
    among = fit_scales(of_set(rows, "qa", even=True))
    found = []
    for name in ("qa", "pairs", "own"):
        test = of_set(rows, name, even=False)
        found.append(measure("combination fitted on qa alone", name, *chances(among, test)))
    return found


def whole_sets(looked: Mapping[str, Sequence[Looked]], weights: LocalWeights) -> list[Figure]:
    """The judge alone on all odd items of the sets that need no model."""
    found = []
    for name, each in looked.items():
        odd = [one for one in each if not one.item.even]
        values = np.array([factuality(one, weights).value or 0.0 for one in odd])
        found.append(measure("factuality, all items", name, values, np.array([bool(one.item.label) for one in odd])))
    return found


def by_precedent() -> Figure:
    """The classifier alone on all odd items of HaluEval general."""
    odd = [item for item in items("general") if not item.even]
    values = np.array([sigmoid(fitted().odds(item.question, item.answer)) for item in odd])
    return measure("precedent, all items", "general", values, np.array([bool(item.label) for item in odd]))


def diagrams(rows: Sequence[Row]) -> dict[str, dict[str, list[Bin]]]:
    """Reliability of the plain mean and of the combination, fitted on each set's own even half."""
    found: dict[str, dict[str, list[Bin]]] = {}
    for name in SETS:
        fit, test = of_set(rows, name, even=True), of_set(rows, name, even=False)
        found[name] = {
            "plain mean": reliability(np.array([mean_of(row) for row in test]), labels_of(test)),
            "calibrated": reliability(*chances(fit_scales(fit), test)),
        }
        rest = [row for row in rows if row.item.set == name and not row.item.even and row.families == ("factuality",)]
        if len(rest) > len(test):
            found[name]["calibrated, factuality alone"] = reliability(*chances(fit_scales(fit), rest))
    return found


def as_json(found: Sequence[Figure]) -> list[dict[str, Any]]:
    """For the line that ends the benchmark."""
    return [
        {"way": each.way, "set": each.set, "items": each.items, "auroc": each.auroc, "ece": round(each.ece, 4)}
        | {"ece_by_chance": round(each.chance, 4)}
        for each in found
    ]
