"""Reviews and agreement as JSON, for the API and for commands with ``--json``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda.core.storage.review_records import JudgementRecord
    from pagoda.logic.reviews.book import Review
    from pagoda.logic.reviews.standing import JudgeStanding, Standing


def review_json(review: Review) -> dict[str, Any]:
    """A review with everything that was said of it."""
    record = review.record
    return {
        "object": "review",
        "id": record.id,
        "request_id": record.request_id,
        "state": record.state,
        "reasons": record.reasons,
        "held": record.held,
        "needed": record.needed,
        "model": record.model,
        "prompt_version": record.prompt_version,
        "prompt": record.prompt,
        "answer": record.answer,
        "text": "kept" if record.answer is not None else "not kept; set log.content, or send it with the feedback",
        "created": record.created.isoformat(),
        "decided": _time(record.decided),
        "judgements": [_judgement_json(each) for each in review.judgements],
    }


def standing_json(standing: Standing) -> dict[str, Any]:
    """How far people, and judges with them, agree."""
    return {
        "object": "review.agreement",
        "items": standing.items,
        "alpha": standing.alpha,
        "pairs": [
            {"reviewers": list(pair.reviewers), "items": pair.items, "kappa": pair.kappa} for pair in standing.pairs
        ],
        "judges": [_judge_json(judge) for judge in standing.judges],
    }


def _judge_json(judge: JudgeStanding) -> dict[str, Any]:
    steps = judge.calibration
    return {
        "judge": judge.judge,
        "items": judge.items,
        "unsure": judge.unsure,
        "agreement": judge.agreement,
        "kappa": judge.kappa,
        "calibration": []
        if steps is None
        else [{"score": score, "approved": rate} for score, rate in zip(steps.starts, steps.rates, strict=True)],
    }


def _judgement_json(judgement: JudgementRecord) -> dict[str, Any]:
    return {
        "reviewer": judgement.reviewer,
        "judge": judgement.judge,
        "claimed_until": judgement.until.isoformat() if judgement.decision is None else None,
        "decision": judgement.decision,
        "score": judgement.score,
        "reason": judgement.reason,
        "edited": judgement.edited,
        "at": _time(judgement.at),
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
