"""The parity gate: what forms of one model answered to the same probes, compared. Computes no model itself.

A probe is a conversation (a text, for a model without chat template) and an answer that is scored token by token.
``read_*`` functions elsewhere give a ``Reading`` a probe: from the trainer, from the merged checkpoint, and from the
served file. ``compare`` holds each against the trainer's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any

import yaml

from pagoda.core.types import Json, Message

GREEDY_TOKENS = 16
"""Tokens that every form writes greedily."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that is asked."""

    id: str
    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one form of the model did with a probe."""

    prompt: tuple[int, ...]
    """Token ids of the prompt, template included."""
    scored: tuple[int, ...]
    """Token ids of the answer that was scored."""
    logprobs: tuple[float, ...]
    """Their natural log-probabilities."""
    written: tuple[int, ...]
    """Token ids of what it wrote greedily, without a stop token and without a character that the limit cut."""
    stopped: bool
    """Whether it ended by itself."""
    margins: tuple[float, ...] = ()
    """Of the trainer's: by how much (natural logarithm) each written token, and the end, beat the next best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison: what was held against what, the difference, and whether it is allowed."""

    stage: str
    probe: str
    what: str
    passed: bool
    difference: float = 0.0
    allowed: float = 0.0
    said: str = ""

    def to_json(self) -> dict[str, Json]:
        """As a report keeps it."""
        return asdict(self)


TOLERANCES: Mapping[str, float] = {
    "merged": 2e-3,
    "F32": 0.02,
    "F16": 0.05,
    "BF16": 0.2,
    "Q8_0": 0.25,
}
"""Largest mean difference of log-probabilities over a probe's answer (natural logarithm), by stage or form. llama.cpp
keeps keys and values in half precision, so that a file in single precision differs as well."""
_OTHERWISE = 1.0
"""For forms that lose more by design: the gate then guards template, tokens and stops, and against nonsense."""


TENSOR_TOLERANCES: Mapping[str, float] = {"F32": 1e-6, "F16": 2e-3, "BF16": 5e-3, "Q8_0": 0.02, "Q2_K": 0.4}
"""Largest root mean square error of a tensor, relative to its values' root mean square, by form."""
_TENSOR_OTHERWISE = 0.25


def tolerance_of(form: str) -> float:
    """The tolerance of log-probabilities of a form."""
    return TOLERANCES.get(form, _OTHERWISE)


def tensor_tolerance_of(form: str) -> float:
    """The tolerance of tensors of a form."""
    return TENSOR_TOLERANCES.get(form, _TENSOR_OTHERWISE)


def read_probes() -> list[Probe]:
    """The packaged probes."""
    text = resources.files(__package__).joinpath("probes.yaml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = yaml.safe_load(text)["probes"]
    return [Probe(item["id"], tuple(item["messages"]), item["answer"]) for item in found]


def compare(
    stage: str,
    readings: Mapping[str, Reading],
    trainer: Mapping[str, Reading],
    allowed: float,
    hidden: Collection[int] = (),
) -> list[Finding]:
    """Every probe's reading against the trainer's: tokens of prompt and answer, log-probabilities, greedy text.

    ``hidden`` are tokens without text, which served chats do not show.
    """
    findings = []
    for probe, whole in trainer.items():
        reading, reference = _shown(readings[probe], hidden), _shown(whole, hidden)
        findings.append(_same_ids(stage, probe, "tokens of the prompt", reading.prompt, reference.prompt))
        findings.append(_same_ids(stage, probe, "tokens of the answer", reading.scored, reference.scored))
        if reading.scored == reference.scored:
            findings.append(_near(stage, probe, reading.logprobs, reference.logprobs, allowed))
        findings.append(_same_text(stage, probe, reading, reference, allowed))
    return findings


def _shown(reading: Reading, hidden: Collection[int]) -> Reading:
    kept = [place for place, token in enumerate(reading.written) if token not in hidden]
    ends = range(len(reading.written), len(reading.margins))
    return replace(
        reading,
        written=tuple(reading.written[place] for place in kept),
        margins=tuple(reading.margins[place] for place in (*kept, *ends) if place < len(reading.margins)),
    )


def _same_ids(stage: str, probe: str, what: str, got: Sequence[int], wanted: Sequence[int]) -> Finding:
    if tuple(got) == tuple(wanted):
        return Finding(stage=stage, probe=probe, what=what, passed=True)
    place = _first_difference(got, wanted)
    here, there = list(got[place : place + 5]), list(wanted[place : place + 5])
    said = f"differ from place {place}: {here} where the trainer has {there}"
    return Finding(stage=stage, probe=probe, what=what, passed=False, said=said)


def _near(stage: str, probe: str, got: Sequence[float], wanted: Sequence[float], allowed: float) -> Finding:
    gaps = [abs(one - other) for one, other in zip(got, wanted, strict=True)]
    mean = sum(gaps) / len(gaps)
    return Finding(
        stage=stage,
        probe=probe,
        what="log-probabilities",
        passed=mean <= allowed,  # a NaN is not
        difference=mean,
        allowed=allowed,
        said="" if mean <= allowed else f"differ by {mean:.4f} on average, {max(gaps):.4f} at most",
    )


def _same_text(stage: str, probe: str, reading: Reading, reference: Reading, allowed: float) -> Finding:
    """Greedy texts are equal up to a place where the trainer itself was undecided within the tolerance."""
    what = "greedy text"
    if reading.written == reference.written and reading.stopped == reference.stopped:
        return Finding(stage=stage, probe=probe, what=what, passed=True)
    place = _first_difference(reading.written, reference.written)
    margin = reference.margins[place] if place < len(reference.margins) else float("inf")
    undecided = margin <= 2 * allowed
    said = f"differs from token {place}, where the trainer's choice led by {margin:.4f}"
    if reading.written == reference.written:
        said = "ends where the trainer's goes on" if reading.stopped else "goes on where the trainer's ends"
        said += f" (by {margin:.4f})"
    return Finding(
        stage=stage, probe=probe, what=what, passed=undecided, difference=margin, allowed=2 * allowed, said=said
    )


def _first_difference(got: Sequence[int], wanted: Sequence[int]) -> int:
    pairs = enumerate(zip(got, wanted, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(got), len(wanted)))


def same(stage: str, what: str, got: object, wanted: object) -> Finding:
    """A finding on something that must be equal."""
    passed = got == wanted
    said = "" if passed else f"is {_short(got)} where the trainer has {_short(wanted)}"
    return Finding(stage=stage, probe="", what=what, passed=passed, said=said)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
