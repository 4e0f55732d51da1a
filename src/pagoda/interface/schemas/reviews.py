"""``/api/v1/reviews``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pagoda.interface.schemas.chat import ChatMessage
from pagoda.interface.schemas.feedback import Id, Words
from pagoda.interface.schemas.shared import Shape, Strict
from pagoda.logic.reviews.words import Claim, Decision, State

Person = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$", description="Who reviews.")]


class ReviewRequest(Strict):
    """An answer that somebody should look at."""

    request_id: Id = Field(description="X-Request-Id of the answer, or the answer's own id.")
    reason: Claim = "safety"
    detail: dict[str, Any] = Field({}, max_length=50)
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=1000)
    answer: Words | None = None
    model: str = Field("", max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")


class ClaimRequest(Strict):
    """Who wants something to review."""

    reviewer: Person
    review: Id | None = Field(None, description="This one; without it the one that has waited longest.")
    seconds: float | None = Field(None, ge=1, le=86_400, description="How long; without it reviews.claim_seconds.")


class RulingRequest(Strict):
    """What somebody decides."""

    reviewer: Person
    decision: Decision
    reason: Words | None = Field(None, description="Needed to reject.")
    edited: Words | None = Field(None, description="The answer as it should be; needed to edit.")


class JudgementObject(Shape):
    """What one reviewer, or one judging model, said."""

    reviewer: str
    judge: bool
    claimed_until: str | None
    decision: str | None
    score: float | None
    reason: str | None
    edited: str | None
    at: str | None


class ReviewObject(Shape):
    """An answer in the queue."""

    object: Literal["review"]
    id: str
    request_id: str
    state: State
    reasons: dict[str, Any]
    held: bool
    needed: int
    model: str
    prompt_version: str | None
    prompt: dict[str, Any] | None
    answer: str | None
    text: str
    created: str
    decided: str | None
    judgements: list[JudgementObject]


class ReviewList(Shape):
    """Reviews; those that waited longest come first."""

    object: Literal["list"]
    data: list[ReviewObject]


class ClaimAnswer(Shape):
    """A review that was claimed; null where nothing waits."""

    review: ReviewObject | None


class HeldAnswer(Shape):
    """An answer as people left it."""

    review: str
    state: State
    answer: str


class PairObject(Shape):
    """Two people."""

    reviewers: list[str]
    items: int
    kappa: float | None


class StepObject(Shape):
    """From this score on, people approve this share."""

    score: float
    approved: float


class JudgeObject(Shape):
    """A judging model beside people."""

    judge: str
    items: int
    unsure: int
    agreement: float | None
    kappa: float | None
    calibration: list[StepObject]


class AgreementObject(Shape):
    """How far those who reviewed agree."""

    object: Literal["review.agreement"]
    items: int
    alpha: float | None
    pairs: list[PairObject]
    judges: list[JudgeObject]
