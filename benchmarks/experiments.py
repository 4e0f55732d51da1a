"""False wins under continuous looking, and what an A/B test takes: bets beside z-tests, on the same draws.

A/A: both variants alike, looked at after every single outcome; a win is false. Three peers on the very same outcomes: a
z-test that is looked at as often, one that is looked at once at the end, and one at ten times agreed on beforehand
(Bonferroni). A/B: outcomes until the bets decide, in relation to the fixed sample of a z-test with 80 % power. Also
what breaks weaker methods: a mean that drifts for all alike while the shares are changed.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pagoda.core.settings import Experiments, Prices
from pagoda.core.types import Call
from pagoda.logic.experiments.assignment import Assignment, ramped
from pagoda.logic.experiments.betting import Floats, Outcomes, stakes, weigh
from pagoda.logic.experiments.design import Design, Metric, Target, Variant
from pagoda.logic.experiments.plan import Question, plan
from pagoda.logic.experiments.roster import Roster
from pagoda.service.limits.prices import price_table

ALPHA = 0.05
AA_RUNS = 2000
AA_OUTCOMES = 10_000
AB_RUNS = 400
AB_QUESTIONS = ((0.5, 0.1), (0.5, 0.05), (0.2, 0.05), (0.1, 0.03), (0.05, 0.02))
BURN_IN = 50
PICTURE = Path("docs/images/experiments.png")


def decided(outcomes: Outcomes, given: Floats) -> int | None:
    """The number of outcomes at which bets refuse "no difference", looked at after each."""
    weighted, _ = weigh(outcomes)
    bar = 2 / ALPHA
    for sign in (1.0, -1.0):
        paths = np.cumprod(1 + sign * given[:, None] * weighted[None, :], axis=1).mean(axis=0)
        if (hits := np.flatnonzero(paths >= bar)).size:
            return int(hits[0]) + 1
    return None


def z_path(outcomes: Outcomes) -> Floats:
    """The two-sample z statistic after each outcome."""
    treated, value = outcomes.treated, outcomes.value
    ones, zeros = np.cumsum(treated), np.cumsum(1 - treated)
    with np.errstate(invalid="ignore", divide="ignore"):
        high, low = np.cumsum(treated * value) / ones, np.cumsum((1 - treated) * value) / zeros
        spread = np.sqrt(high * (1 - high) / ones + low * (1 - low) / zeros)
        return np.nan_to_num((high - low) / spread, nan=0.0, posinf=0.0, neginf=0.0)


def drawn(random: np.random.Generator, count: int, base: Floats | float, effect: float, share: Floats) -> Outcomes:
    """Outcomes of yes and no."""
    treated = (random.random(count) < share).astype(float)
    return Outcomes(treated, share, (random.random(count) < base + effect * treated).astype(float))


def false_wins(random: np.random.Generator, kind: str) -> dict[str, float]:
    """Shares of A/A experiments that named a winner."""
    given, half = stakes(), np.full(AA_OUTCOMES, 0.5)
    wins = dict.fromkeys(("bets", "z, peeking", "z, once", "z, ten looks agreed"), 0)
    looks = np.linspace(AA_OUTCOMES // 10, AA_OUTCOMES, 10).astype(int) - 1
    for _ in range(AA_RUNS):
        base: Floats | float = random.choice([0.02, 0.1, 0.3, 0.5])
        share = half
        if kind == "drift and ramp":  # everybody's mean rises while the treatment's share does: Simpson's trap
            base, share = np.linspace(0.2, 0.6, AA_OUTCOMES), np.repeat([0.1, 0.3, 0.5, 0.7], AA_OUTCOMES // 4)
        outcomes = drawn(random, AA_OUTCOMES, base, 0.0, share)
        path = np.abs(z_path(outcomes))
        wins["bets"] += decided(outcomes, given) is not None
        wins["z, peeking"] += bool((path[BURN_IN:] >= 1.96).any())
        wins["z, once"] += bool(path[-1] >= 1.96)
        wins["z, ten looks agreed"] += bool((path[looks] >= 2.807).any())
    return {name: count / AA_RUNS for name, count in wins.items()}


def samples(random: np.random.Generator, baseline: float, effect: float) -> dict[str, Any]:
    """What an A/B experiment takes, in relation to the fixed sample."""
    planned = plan(Question(baseline=baseline, effect=effect))
    longest = planned.fixed * 6
    half = np.full(longest, 0.5)
    found: dict[str, list[float]] = {"stated": [], "unstated": []}
    for _ in range(AB_RUNS):
        outcomes = drawn(random, longest, baseline, effect, half)
        for name, given in (("stated", stakes(effect, baseline)), ("unstated", stakes())):
            found[name].append(decided(outcomes, given) or longest)
    return {
        "baseline": baseline,
        "effect": effect,
        "fixed": planned.fixed,
        "planned_typical": planned.typical,
        "planned_enough": planned.enough,
    } | {
        f"{name}_{word}": round(float(figure), 2)
        for name, taken in found.items()
        for word, figure in (
            ("mean", np.mean(taken) / planned.fixed),
            ("median", np.median(taken) / planned.fixed),
            ("q80", np.quantile(taken, 0.8) / planned.fixed),
        )
    }


def assignment_microseconds() -> dict[str, float]:
    """Microseconds that a request pays: assigned in memory and noted down, or asking for another name."""
    variants = tuple(Variant(name=name, share=0.25, model=name) for name in "abcd")
    design = Design(variants=variants, metric=Metric(name="thumb"))
    target = Target(kind="model", name="support")
    roster = Roster(lambda: None, Experiments(), price_table(Prices()))
    roster._running = {
        ("local", "model", "support"): Assignment("x", "local", target, design, 1.0, ramped((), 1.0, design.shares))
    }
    found = {}
    for name in ("support", "other"):
        calls = [Call(unit=f"user-{number}") for number in range(2000)]
        rounds = []
        for _ in range(9):
            began = time.perf_counter()
            for call in calls:
                roster.model_of(call, name, None)
            rounds.append((time.perf_counter() - began) / len(calls))
            roster._sightings._waiting.clear()
        found["in an experiment" if name == "support" else "beside one"] = round(median(rounds) * 1e6, 2)
    return found


def draw(random: np.random.Generator, picture: Path) -> None:
    """The share of A/A experiments with a false win by then, looked at all the time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    given, half = stakes(), np.full(AA_OUTCOMES, 0.5)
    firsts: dict[str, list[float]] = {"z-test": [], "bets": []}
    for _ in range(AA_RUNS // 2):
        outcomes = drawn(random, AA_OUTCOMES, 0.3, 0.0, half)
        hits = np.flatnonzero(np.abs(z_path(outcomes))[BURN_IN:] >= 1.96)
        firsts["z-test"].append(hits[0] + BURN_IN if hits.size else math.inf)
        firsts["bets"].append(decided(outcomes, given) or math.inf)
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
    at = np.geomspace(BURN_IN, AA_OUTCOMES, 200)
    for name, colour in (("z-test", "#b5452c"), ("bets", "#2a6f97")):
        axes.plot(at, [100 * np.mean(np.array(firsts[name]) <= when) for when in at], label=name, color=colour)
    axes.axhline(100 * ALPHA, color="#888888", linewidth=1, linestyle="--", label="alpha")
    axes.set(xscale="log", xlabel="outcomes, looked at after each", ylabel="A/A experiments with a winner, %")
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)


async def measure() -> dict[str, Any]:
    """False wins under ``alpha`` and samples beside a fixed-horizon test."""
    random = np.random.default_rng(20261129)
    figures: dict[str, Any] = {
        "aa_runs": AA_RUNS,
        "aa_outcomes": AA_OUTCOMES,
        "false_wins": false_wins(random, "plain"),
        "false_wins_drift_and_ramp": false_wins(random, "drift and ramp"),
        "samples": [samples(random, *question) for question in AB_QUESTIONS],
        "assignment_us": assignment_microseconds(),
    }
    draw(random, PICTURE)
    return figures
