"""Who gets which variant: one keyed hash of the unit, so that every process says the same and nothing is looked up.

The hash gives two numbers. By the first a unit takes part, or not yet, or never (hold-out); by the second it gets its
variant. A ramp opens a further slice of the first number's range, with the shares of that moment; slices that are open
stay as they are. So whoever was assigned once keeps the variant, whatever is ramped, stopped or started again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate

from pagoda.logic.experiments.design import HOLDOUT, Design, Target

NO_SLICE = -1
_RANGE = float(2**64)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the units, up to ``upto`` of their range, and the variants' shares in it."""

    upto: float
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a unit was assigned."""

    experiment: str
    team: str
    unit: str
    """A digest."""
    variant: str
    slice: int


class Assignment:
    """The rule of one running experiment."""

    def __init__(
        self, id_: str, team: str, target: Target, design: Design, exposure: float, slices: Sequence[Slice]
    ) -> None:
        self.id = id_
        self.team = team
        self.target = target
        self.design = design
        self.by_request = design.unit == "request"
        self._salt = blake2b(id_.encode(), digest_size=16).digest()
        self._open = min(exposure, 1 - design.holdout)
        self._apart = 1 - design.holdout
        self._ends = [each.upto for each in slices]
        self._steps = [list(accumulate(each.shares))[:-1] for each in slices]
        self._names = [variant.name for variant in design.variants]
        self._models = {variant.name: variant.model for variant in design.variants}
        self._versions = {variant.name: variant.version for variant in design.variants}

    def digest(self, unit: str) -> bytes:
        """The unit as this experiment knows it, 16 bytes."""
        return blake2b(unit.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=16).digest()

    def assign(self, unit: str) -> Trial | None:
        """The unit's variant, ``holdout`` for those kept apart; ``None``: it does not take part (yet)."""
        digest = self.digest(unit)
        place = int.from_bytes(digest[:8]) / _RANGE
        if place >= self._apart:
            return Trial(self.id, self.team, digest.hex(), HOLDOUT, NO_SLICE)
        if place >= self._open:
            return None
        # Without units that stay there is nobody whom new shares would move: the latest hold for all.
        slice_ = len(self._ends) - 1 if self.by_request else bisect_right(self._ends, place)
        point = int.from_bytes(digest[8:]) / _RANGE
        name = self._names[bisect_right(self._steps[slice_], point)]
        return Trial(self.id, self.team, digest.hex(), name, slice_)

    def model_of(self, trial: Trial) -> str | None:
        """The model that the variant asks; ``None``: the target's own."""
        return self._models.get(trial.variant)

    def version_of(self, trial: Trial) -> int | None:
        """The version of the prompt that the variant uses; ``None``: the label's own."""
        return self._versions.get(trial.variant)


def ramped(slices: Sequence[Slice], exposure: float, shares: tuple[float, ...]) -> tuple[Slice, ...]:
    """The slices after a ramp to ``exposure``: what was open stays, what is new is shared out by ``shares``."""
    opened = slices[-1].upto if slices else 0.0
    return tuple(slices) if exposure <= opened else (*slices, Slice(exposure, shares))
