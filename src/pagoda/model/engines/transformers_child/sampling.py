"""Drawing the next token of every row by its own request's settings.

transformers' continuous batching knows three settings a request (temperature, top-k, top-p) and one source of chance
for all. This takes their place as its only logits processor: it draws by itself and hands back scores of which just
the drawn token is finite, so that the library's ``argmax`` takes it. Order: repetition, frequency and presence
penalties, bias, grammar, temperature, then top-k, top-p and min-p on what the temperature left. Log-probabilities are
the raw model's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from pagoda.model.engines.transformers_child.job import Draw, Ended, Job, Rival, Written

_QUICK_WIDTH = 512
"""So many likeliest tokens are looked at before the whole vocabulary is sorted."""

Deliver = Callable[[Sequence[tuple[Job, Written | Ended]]], None]


class RowSampler(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]  # the library carries no types
    """Draws one token a row; ``deliver`` gets what was drawn, on the generation thread."""

    supported_kwargs: dict[str, type] = {"job": Job}  # noqa: RUF012  (the library's form)
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._jobs: list[Job] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """There is nothing to keep in the library's table of arguments."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Note whose rows come next, in their order."""
        self._jobs = [request.state.logit_processor_kwargs["job"] for request in requests_with_new_token]
        return torch.zeros(len(self._jobs), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """``scores``: [rows, vocabulary]; rows after those of our jobs, if any, are padding."""
        del tensor_arg
        jobs = self._jobs
        if not jobs:
            return scores
        raw = scores[: len(jobs)]
        chosen = draw(raw, jobs)
        drawn: list[tuple[Job, Written | Ended]] = []
        for row, (job, id) in enumerate(zip(jobs, chosen.tolist(), strict=True)):
            drawn.append((job, _written(raw[row], id, job.draw.top_logprobs)))
            job.written.append(id)
            if job.constraint is not None and id not in job.ends and (fault := job.constraint.accept(id)):
                drawn.append((job, Ended("error", f"the answer left its grammar: {fault}")))
        self._deliver(drawn)
        forced = torch.full_like(scores, -torch.inf)
        forced[: len(jobs)].scatter_(1, chosen.unsqueeze(1), 0.0)
        forced[len(jobs) :] = 0.0
        return forced


def draw(raw: torch.Tensor, jobs: Sequence[Job]) -> torch.Tensor:
    """The drawn token of each row of ``raw`` ([rows, vocabulary], left as it is)."""
    changed = [job.draw.penalised or bool(job.draw.logit_bias) or job.constraint is not None for job in jobs]
    logits = raw.clone() if any(changed) else raw
    for row, job in enumerate(jobs):
        if changed[row]:
            _change(logits[row], job)
    chosen = logits.argmax(dim=-1)
    rows = [row for row, job in enumerate(jobs) if not job.draw.greedy]
    if rows:
        drawing = [jobs[row] for row in rows]
        chosen[rows] = _sample(logits[rows], [job.draw for job in drawing], [job.chance.random() for job in drawing])
    return chosen


def _change(row: torch.Tensor, job: Job) -> None:
    """Apply in place what depends on one request alone."""
    settings = job.draw
    if settings.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*job.prompt, *job.written}), device=row.device)
        values = row[seen]
        factor = settings.repetition_penalty
        row[seen] = torch.where(values > 0, values / factor, values * factor)
    if job.written and (settings.frequency_penalty or settings.presence_penalty):
        ids, counts = torch.unique(torch.tensor(job.written, device=row.device), return_counts=True)
        row[ids] -= counts * settings.frequency_penalty + settings.presence_penalty
    for id, bias in settings.logit_bias:
        if 0 <= id < row.shape[0]:
            row[id] += bias
    if job.constraint is not None:
        allowed = torch.from_numpy(job.constraint.allowed()).to(row.device)
        row[: allowed.shape[0]].masked_fill_(~allowed, -torch.inf)
        row[allowed.shape[0] :] = -torch.inf


def _sample(logits: torch.Tensor, settings: Sequence[Draw], chances: Sequence[float]) -> torch.Tensor:
    """One token a row, from a number in [0, 1) each.

    The number is laid along the vocabulary in its own order, not along the sorted one: two tokens that swap places
    because a batch of another size rounds otherwise then leave a seeded answer as it is.
    """
    device = logits.device

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=device, dtype=logits.dtype).unsqueeze(1)

    hot = logits / column([item.temperature for item in settings])
    floor = _floor(hot, settings)
    min_p = column([item.min_p for item in settings])
    least = torch.where(min_p > 0, hot.amax(dim=-1, keepdim=True) + min_p.clamp_min(1e-30).log(), -torch.inf)
    kept = hot.masked_fill(hot < torch.maximum(floor, least), -torch.inf)
    sums = kept.double().softmax(dim=-1).cumsum(dim=-1)
    wanted = torch.tensor(chances, device=device, dtype=torch.float64).unsqueeze(1) * sums[:, -1:]
    found = torch.searchsorted(sums, wanted, right=True).squeeze(1)
    last = (torch.arange(kept.shape[1], device=device) * (kept > -torch.inf)).amax(dim=-1)
    return torch.minimum(found, last)


def _floor(hot: torch.Tensor, settings: Sequence[Draw]) -> torch.Tensor:
    """For each row the least score that top-k and then top-p keep ([rows, 1])."""
    size = hot.shape[1]
    nothing = torch.full((hot.shape[0], 1), -torch.inf, device=hot.device, dtype=hot.dtype)
    if all(item.top_p >= 1 and not 0 < item.top_k < size for item in settings):
        return nothing
    top_k = torch.tensor([item.top_k if 0 < item.top_k < size else size for item in settings], device=hot.device)
    top_p = torch.tensor([item.top_p for item in settings], device=hot.device, dtype=hot.dtype)
    whole = hot.logsumexp(dim=-1, keepdim=True)
    for width in (min(_QUICK_WIDTH, size), size):
        values = hot.topk(width, dim=-1).values
        shares = (values - whole).exp()
        within = torch.arange(width, device=hot.device).unsqueeze(0) < top_k.unsqueeze(1)
        shares = shares * within
        mass = torch.where(top_k < size, shares.sum(dim=-1), 1.0)  # top-p counts what top-k has left
        before = shares.cumsum(dim=-1) - shares
        keep = within & ((before < (top_p * mass).unsqueeze(1)) | (top_p >= 1).unsqueeze(1))
        keep[:, 0] = True
        count = keep.sum(dim=-1)
        free = (top_p >= 1) & (top_k >= size)
        decided = free | (top_k <= width) | ((top_k >= size) & (count < width))
        if bool(decided.all()) or width == size:
            floor = values.gather(1, (count - 1).unsqueeze(1))
            return torch.where(free.unsqueeze(1), nothing, floor)
    raise AssertionError("the last width is the whole vocabulary")


def _written(row: torch.Tensor, id: int, top: int | None) -> Written:
    if top is None:
        return Written(id)
    logprobs = row.log_softmax(dim=-1)
    best = logprobs.topk(top) if top else None
    rivals = () if best is None else tuple(map(Rival, best.indices.tolist(), best.values.tolist()))
    return Written(id, float(logprobs[id]), rivals)
