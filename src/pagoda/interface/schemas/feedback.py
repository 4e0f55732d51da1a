"""``/api/v1/feedback``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from pagoda.interface.schemas.chat import ChatMessage
from pagoda.interface.schemas.experiments import Name
from pagoda.interface.schemas.shared import Shape, Strict
from pagoda.logic.feedback.saying import Thumb

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Words = Annotated[str, Field(min_length=1, max_length=200_000)]
Outcome = Annotated[float, Field(ge=0, le=1e12)]


class FeedbackRequest(Strict):
    """What somebody says of an answer, or of a unit of an experiment."""

    request_id: Id | None = Field(None, description="X-Request-Id of the answer.")
    completion_id: Id | None = Field(None, description="Or the answer's own id, chatcmpl-...")
    experiment: Id | None = Field(None, description="Or an experiment, by id or name, and")
    unit: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(None, description="one of its units.")
    user: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        None, description="Who says it; each author has one word on each answer. Without it: the key."
    )
    thumb: Thumb | None = None
    score: float | None = Field(None, ge=0, le=1)
    text: Words | None = None
    correction: Words | None = Field(None, description="What the answer should have been.")
    metrics: dict[Name, Outcome] = Field({}, max_length=50, description="Further outcomes by name.")
    messages: list[ChatMessage] | None = Field(
        None, min_length=1, max_length=1000, description="What was asked, for services that keep no prompts."
    )
    answer: Words | None = Field(None, description="What was answered, likewise.")
    replace: StrictBool = Field(False, description="Change what the same author said before.")


class FeedbackObject(Shape):
    """Feedback as it is kept."""

    object: Literal["feedback"]
    id: str
    at: str
    request_id: str | None
    experiment_id: str | None
    author: str
    thumb: Thumb | None
    score: float | None
    text: str | None
    correction: str | None
    metrics: dict[str, float]


class FeedbackAnswer(FeedbackObject):
    """The same, and what it set off."""

    repeated: bool = Field(description="The very same was said before; nothing changed.")
    experiments: list[str] = Field(description="Names of the experiments that it is an outcome of.")
    review: str | None = Field(description="The review that it set off.")


class FeedbackList(Shape):
    """Feedback, newest first."""

    object: Literal["list"]
    data: list[FeedbackObject]
