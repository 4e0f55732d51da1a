"""What a comparison found: each variant's rate, time, tokens and cost, and the differences with their tests.

A winner is named only if it beats each other variant by the tests, adjusted for being several. Otherwise the report
says how many cases it would take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pagoda.logic.evaluation.statistics import (
    Difference,
    Interval,
    Values,
    holm,
    paired_means,
    paired_rates,
    ratio_of_means,
    wilson,
)
from pagoda.logic.evaluation.trials import Answered, Trials

Cost = Callable[[str, int, int, int], int]
"""Billionths of the currency for a call: of model, prompt, cached and completion tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSummary:
    """One scorer over the answers of one variant."""

    name: str
    rate: Interval | None
    """Successes among what was judged; with repeats over the cases' shares; ``None``: nothing was judged."""
    mean: float | None
    judged: int
    could_not_judge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSummary:
    """One variant."""

    name: str
    prompt: str
    model: str
    trials: int
    errors: int
    unread: int
    """Answers in which the prompt's answer was not found."""
    scorers: tuple[ScorerSummary, ...]
    flicker: float | None
    """Share of cases whose repeats did not all come out alike; ``None``: not repeated."""
    p50: float | None
    p95: float | None
    """Seconds for an answer, waiting in line included."""
    prompt_tokens: int
    completion_tokens: int
    cost: int
    """Billionths of the currency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two variants over the cases that both were judged on; the second minus the first."""

    first: int
    second: int
    difference: Difference
    adjusted_p: float
    seconds: Interval | None
    tokens: Interval | None
    """How many times the first's mean the second's is: time, and tokens of prompt and answer."""

    @property
    def is_clear(self) -> bool:
        """Whether the variants differ beyond chance."""
        return self.adjusted_p < ALPHA and self.difference.interval.value != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A trial that did not succeed."""

    variant: int
    case: str
    repeat: int
    expected: str | None
    text: str
    answer: str | None
    why: str
    could_not_judge: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole comparison."""

    cases: int
    repeats: int
    scorers: tuple[str, ...]
    currency: str
    variants: tuple[VariantSummary, ...]
    pairs: tuple[Pair, ...]
    winner: int | None
    failures: tuple[Failure, ...]
    complete: bool
    """Whether every trial has an answer or an error."""


ALPHA = 0.05


def make_report(trials: Trials, scorers: Sequence[str], cost: Cost, currency: str) -> Report:
    """The report over what was answered and scored; the first scorer decides."""
    answered, scores = trials.answered(), trials.scores()
    by_variant = [[each for each in answered if each.trial.variant == index] for index in range(len(trials.variants))]
    tables = [_outcomes(mine, scores, len(trials.cases)) for mine in by_variant]
    variants = tuple(
        _summary(trials, index, by_variant[index], scores, (scorers, cost)) for index in range(len(trials.variants))
    )
    pairs = _pairs(trials, by_variant, tables)
    return Report(
        cases=len(trials.cases),
        repeats=trials.repeats,
        scorers=tuple(scorers),
        currency=currency,
        variants=variants,
        pairs=pairs,
        winner=_winner(len(variants), pairs),
        failures=tuple(_failures(trials, answered, scores)),
        complete=len(answered) == len(trials),
    )


def report_json(report: Report) -> dict[str, Any]:
    """The report for machines."""
    told = asdict(report)
    for row, pair in zip(told["pairs"], report.pairs, strict=True):
        row["clear"] = pair.is_clear
    told["winner"] = None if report.winner is None else report.variants[report.winner].name
    return told


def _outcomes(mine: Sequence[Answered], scores: Mapping[tuple[str, int], Mapping[str, Any]], cases: int) -> Values:
    """By case: the share of its repeats that succeeded, of those that were judged; NaN (within) for none judged."""
    won, seen = np.zeros(cases), np.zeros(cases)
    for each in mine:
        passed = _passed(each, scores)
        if passed is not None:
            won[each.trial.case] += passed
            seen[each.trial.case] += 1
    return _divided(won, seen)


def _passed(each: Answered, scores: Mapping[tuple[str, int], Mapping[str, Any]], scorer: int = 0) -> bool | None:
    """Whether a trial succeeded; an error is no success, ``None`` is "could not judge"."""
    if each.error is not None:
        return False
    score = scores.get((each.trial.id, scorer))
    return None if score is None else score["passed"]


def _summary(
    trials: Trials,
    index: int,
    mine: Sequence[Answered],
    scores: Mapping[tuple[str, int], Mapping[str, Any]],
    means: tuple[Sequence[str], Cost],
) -> VariantSummary:
    scorers, cost = means
    variant = trials.variants[index]
    good = [each for each in mine if each.error is None]
    times = [each.seconds for each in good]
    reads = variant.version.prompt.answer is not None
    return VariantSummary(
        name=variant.name,
        prompt=variant.version.reference,
        model=variant.model,
        trials=len(mine),
        errors=len(mine) - len(good),
        unread=sum(reads and each.answer is None for each in good),
        scorers=tuple(_scored(name, place, mine, scores) for place, name in enumerate(scorers)),
        flicker=_flicker(mine, scores) if trials.repeats > 1 else None,
        p50=float(np.quantile(times, 0.5)) if times else None,
        p95=float(np.quantile(times, 0.95)) if times else None,
        prompt_tokens=sum(each.prompt_tokens for each in good),
        completion_tokens=sum(each.completion_tokens for each in good),
        cost=sum(cost(variant.model, each.prompt_tokens, each.cached_tokens, each.completion_tokens) for each in good),
    )


def _scored(
    name: str, place: int, mine: Sequence[Answered], scores: Mapping[tuple[str, int], Mapping[str, Any]]
) -> ScorerSummary:
    """Repeats of a case are not independent: the interval counts cases, each with its share of successes."""
    shares: dict[int, list[bool]] = {}
    values: list[float] = []
    unjudged = 0
    for each in mine:
        passed = _passed(each, scores, place)
        if passed is None:
            unjudged += 1
            continue
        shares.setdefault(each.trial.case, []).append(passed)
        score = scores.get((each.trial.id, place))
        if score is not None and score["value"] is not None:
            values.append(score["value"])
    rate = wilson(sum(sum(share) / len(share) for share in shares.values()), len(shares), ALPHA)
    return ScorerSummary(
        name=name,
        rate=rate,
        mean=sum(values) / len(values) if values else None,
        judged=sum(len(share) for share in shares.values()),
        could_not_judge=unjudged,
    )


def _flicker(mine: Sequence[Answered], scores: Mapping[tuple[str, int], Mapping[str, Any]]) -> float | None:
    outcomes: dict[int, set[bool | None]] = {}
    for each in mine:
        outcomes.setdefault(each.trial.case, set()).add(_passed(each, scores))
    return sum(len(each) > 1 for each in outcomes.values()) / len(outcomes) if outcomes else None


def _pairs(trials: Trials, by_variant: Sequence[Sequence[Answered]], tables: Sequence[Values]) -> tuple[Pair, ...]:
    couples = list(combinations(range(len(tables)), 2))
    found = []
    for first, second in couples:
        both = ~np.isnan(tables[first]) & ~np.isnan(tables[second])
        one, two = tables[first][both], tables[second][both]
        alpha = ALPHA / max(1, len(couples))
        if trials.repeats == 1:
            difference = paired_rates([bool(x) for x in one], [bool(x) for x in two], alpha)
        else:
            difference = paired_means(one, two, alpha)
        found.append(difference)
    adjusted = holm([difference.p for difference in found])
    spent = [
        (_means(mine, len(trials.cases), lambda each: each.seconds), _means(mine, len(trials.cases), _tokens))
        for mine in by_variant
    ]
    return tuple(
        Pair(
            first=first,
            second=second,
            difference=difference,
            adjusted_p=p,
            seconds=_ratio(spent[first][0], spent[second][0]),
            tokens=_ratio(spent[first][1], spent[second][1]),
        )
        for (first, second), difference, p in zip(couples, found, adjusted, strict=True)
    )


def _tokens(each: Answered) -> float:
    return each.prompt_tokens + each.completion_tokens


def _means(mine: Sequence[Answered], cases: int, what: Callable[[Answered], float]) -> Values:
    total, seen = np.zeros(cases), np.zeros(cases)
    for each in mine:
        if each.error is None:
            total[each.trial.case] += what(each)
            seen[each.trial.case] += 1
    return _divided(total, seen)


def _divided(total: Values, seen: Values) -> Values:
    shares: Values = np.divide(total, seen, out=np.full(len(seen), np.nan), where=seen > 0)
    return shares


def _ratio(first: Values, second: Values) -> Interval | None:
    both = ~np.isnan(first) & ~np.isnan(second)
    return ratio_of_means(first[both], second[both])


def _winner(variants: int, pairs: Sequence[Pair]) -> int | None:
    """The variant that clearly beats every other one, if there is one."""
    beaten: list[set[int]] = [set() for _ in range(variants)]
    for pair in pairs:
        if pair.is_clear:
            ahead = pair.difference.interval.value > 0
            winner, loser = (pair.second, pair.first) if ahead else (pair.first, pair.second)
            beaten[winner].add(loser)
    return next((index for index in range(variants) if variants > 1 and len(beaten[index]) == variants - 1), None)


def _failures(
    trials: Trials, answered: Sequence[Answered], scores: Mapping[tuple[str, int], Mapping[str, Any]]
) -> list[Failure]:
    found = []
    for each in answered:
        passed = _passed(each, scores)
        if passed:
            continue
        case = trials.cases[each.trial.case]
        score = scores.get((each.trial.id, 0), {})
        found.append(
            Failure(
                variant=each.trial.variant,
                case=case.id,
                repeat=each.trial.repeat,
                expected=case.expected,
                text=each.text,
                answer=each.answer,
                why=each.error or str(score.get("reason", "")),
                could_not_judge=passed is None,
            )
        )
    return found
