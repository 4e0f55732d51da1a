"""Adaptive allocation: more requests to what does better, as Thompson (1933) has it, and never fewer than a tenth.

Each variant gets the probability that its mean is the best, by Beta distributions of outcomes in [0, 1]. The evidence
stays exact under it (``betting``): each draw's probability is known before it is made, and kept with the outcome.
"""

from __future__ import annotations

import asyncio

import numpy as np

from pagoda.logic.experiments.book import Experiment, ExperimentBook, Seen
from pagoda.logic.experiments.design import LEAST_ADAPTIVE_SHARE

_DRAWS = 4000
_LEAST_OUTCOMES = 20


async def adapt(book: ExperimentBook, experiment: Experiment) -> bool:
    """Share an experiment out anew by what is known; false where nothing changed, or somebody else was faster."""
    seen = await book.seen(experiment.id, experiment.design.metric.name)
    shares = await asyncio.to_thread(better_shares, experiment, seen)
    if shares is None or max(abs(a - b) for a, b in zip(shares, experiment.slices[-1].shares, strict=True)) < 0.02:
        return False
    return await book.adapt(experiment, shares)


def better_shares(experiment: Experiment, seen: Seen) -> tuple[float, ...] | None:
    """The shares that outcomes speak for; ``None`` while there are too few."""
    design = experiment.design
    values = np.array(seen.values) / design.metric.most
    names = np.array(seen.variants)
    parts = [values[names == variant.name] for variant in design.variants]
    if min(len(part) for part in parts) < _LEAST_OUTCOMES:
        return None
    random = np.random.default_rng(experiment.revision)
    good = [(part.sum(), len(part) - part.sum()) for part in parts]
    if design.metric.direction == "down":
        good = [(bad, well) for well, bad in good]
    draws = np.stack([random.beta(1 + well, 1 + bad, _DRAWS) for well, bad in good])
    best = np.bincount(draws.argmax(axis=0), minlength=len(parts)) / _DRAWS
    free = 1 - LEAST_ADAPTIVE_SHARE * len(parts)
    shares = [round(float(LEAST_ADAPTIVE_SHARE + free * share), 4) for share in best]
    shares[-1] = 1 - sum(shares[:-1])
    return tuple(shares)
