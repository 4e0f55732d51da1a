"""Each row is drawn by its own request's settings: against a slow and obvious reference, and by its invariants."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("llguidance")

from pagoda.model.engines.transformers_child.job import Draw, Job  # noqa: E402
from pagoda.model.engines.transformers_child.sampling import draw  # noqa: E402

VOCABULARY = 1500
"""More than the sampler looks at before it sorts everything."""


def job(settings: Draw, *, prompt: tuple[int, ...] = (), written: tuple[int, ...] = (), seed: str = "s") -> Job:
    made = Job(prompt=list(prompt), limit=1, draw=settings, ends=frozenset(), seed=seed)
    made.written = list(written)
    return made


def allowed(row: list[float], made: Job) -> dict[int, float]:
    """The tokens that may be drawn, with their probabilities, as the settings define them one after another."""
    how = made.draw
    logits = list(row)
    for id in {*made.prompt, *made.written}:
        logits[id] = logits[id] / how.repetition_penalty if logits[id] > 0 else logits[id] * how.repetition_penalty
    for id in set(made.written):
        logits[id] -= made.written.count(id) * how.frequency_penalty + how.presence_penalty
    for id, bias in how.logit_bias:
        logits[id] += bias
    order = sorted(range(len(logits)), key=lambda id: -logits[id])
    peak = logits[order[0]]
    weights = {id: math.exp((logits[id] - peak) / how.temperature) for id in order}
    if how.top_k:
        weights = {id: weights[id] for id in order[: how.top_k]}
    if how.top_p < 1:
        total, mass = sum(weights.values()), 0.0
        kept: dict[int, float] = {}
        for id, weight in weights.items():
            if mass >= how.top_p * total and kept:
                break
            kept[id] = weight
            mass += weight
        weights = kept
    weights = {id: weight for id, weight in weights.items() if weight >= how.min_p}
    total = sum(weights.values())
    return {id: weight / total for id, weight in weights.items()}


def rows(seed: int, count: int, spread: float) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, VOCABULARY), generator=generator) * spread


draws = st.builds(
    Draw,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    top_p=st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.05]),
    top_k=st.sampled_from([0, 1, 5, 600, VOCABULARY, 10 * VOCABULARY]),
    min_p=st.sampled_from([0.0, 0.01, 0.3]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    presence_penalty=st.sampled_from([0.0, -0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([(), ((3, 4.0), (7, -100.0))]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(draws, min_size=1, max_size=5), st.integers(0, 999), st.sampled_from([0.2, 2.0, 8.0]))
def test_what_is_drawn_is_what_the_settings_allow(chosen: list[Draw], seed: int, spread: float) -> None:
    raw = rows(seed, len(chosen), spread)
    before = raw.clone()
    jobs = [job(how, prompt=(3, 4), written=(5, 5, 6), seed=f"{seed}/{place}") for place, how in enumerate(chosen)]
    ids = draw(raw, jobs).tolist()
    assert torch.equal(raw, before), "the raw logits are needed for log-probabilities"
    for row, id, made in zip(raw.tolist(), ids, jobs, strict=True):
        probable = allowed(row, made)
        slack = {
            other for other, share in allowed(row, job(_looser(made.draw), prompt=(3, 4), written=(5, 5, 6))).items()
        }
        assert id in probable or id in slack, "rounding may move the edge by a token, no more"


def _looser(how: Draw) -> Draw:
    import dataclasses

    return dataclasses.replace(how, top_p=min(1.0, how.top_p * 1.001), min_p=how.min_p * 0.999)


@settings(max_examples=30, deadline=None)
@given(st.lists(draws, min_size=2, max_size=6), st.integers(0, 999))
def test_a_row_is_drawn_alike_alone_and_beside_any_others(chosen: list[Draw], seed: int) -> None:
    raw = rows(seed, len(chosen), 3.0)

    def jobs() -> list[Job]:
        return [job(how, written=(1, 2), seed=f"{seed}/{place}") for place, how in enumerate(chosen)]

    together = draw(raw, jobs()).tolist()
    alone = [int(draw(raw[place : place + 1], [made])) for place, made in enumerate(jobs())]
    assert together == alone


@pytest.mark.parametrize(
    "how",
    [
        Draw(temperature=1.0),
        Draw(temperature=0.7, top_p=0.8),
        Draw(temperature=1.5, top_k=40, top_p=0.9),
        Draw(temperature=1.0, min_p=0.05),
        Draw(temperature=1.0, top_k=600, top_p=0.7),
    ],
)
def test_tokens_come_as_often_as_their_probability_says(how: Draw) -> None:
    row = rows(1, 1, 3.0)
    expected = allowed(row[0].tolist(), job(how))
    made = job(how)
    made.chance = random.Random(11)
    count = 4000
    found: dict[int, int] = {}
    for _ in range(count // 40):
        for id in draw(row.expand(40, -1), [made] * 40).tolist():
            found[id] = found.get(id, 0) + 1
    assert set(found) <= set(expected)
    for id, share in expected.items():
        deviation = math.sqrt(share * (1 - share) / count)
        assert abs(found.get(id, 0) / count - share) < 5 * deviation + 1e-3


def test_greedy_takes_the_likeliest_and_other_rows_do_not_matter() -> None:
    raw = rows(3, 3, 3.0)
    jobs = [job(Draw(temperature=0)), job(Draw(temperature=2.0)), job(Draw(temperature=0, logit_bias=((9, 1e9),)))]
    ids = draw(raw, jobs).tolist()
    assert ids[0] == int(raw[0].argmax())
    assert ids[2] == 9
