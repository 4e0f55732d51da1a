"""``/api/v1/trust``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pagoda.interface.schemas.shared import ModelName, Shape, Strict
from pagoda.logic.trust.subject import FAMILIES, Action, Family

MOST_CHARACTERS = 200_000
Text = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
Collection = Annotated[
    str, Field(min_length=1, max_length=100, description="Of the team, where sources are looked for.")
]
Question = Annotated[str, Field(max_length=MOST_CHARACTERS, description="What was asked.")]
JudgeName = Annotated[
    str, Field(min_length=1, max_length=500, description="Who judges claims: local, or a served model's id or alias.")
]


class SourceText(Strict):
    """A text to hold claims against."""

    name: str = Field("text", max_length=1000)
    text: Annotated[str, Field(min_length=1, max_length=1_000_000)]


class TrustPolicy(Strict):
    """What becomes of an answer below the bar."""

    threshold: float = Field(0.5, ge=0, le=1, description="The least confidence.")
    below: Action = "keep"
    model: ModelName | None = Field(None, description="The better model to ask, for below: ask.")


class ScoreRequest(Strict):
    """An answer that one wants to be sure of."""

    answer: Text
    question: Question = ""
    sources: list[SourceText] = Field([], max_length=100)
    collection: Collection | None = None
    earlier: list[Text] = Field([], max_length=100, description="Earlier answers of the conversation, oldest first.")
    model: ModelName | None = Field(None, description="Whose probabilities and samples count; absent: the default.")
    judge: JudgeName = "local"
    families: list[Family] = Field(list(FAMILIES), min_length=1, max_length=len(FAMILIES))
    policy: TrustPolicy = TrustPolicy()


class CheckRequest(Strict):
    """Claims to be held against sources: given ones, or a collection."""

    claims: Annotated[str | list[Text], Field(description="Sentences, as one text or several.")]
    question: Question = ""
    sources: list[SourceText] = Field([], max_length=100)
    collection: Collection | None = None
    judge: JudgeName = "local"

    @model_validator(mode="after")
    def _check(self) -> CheckRequest:
        if bool(self.sources) == (self.collection is not None):
            raise ValueError("say what the claims are held against: sources, or a collection")
        return self

    def text(self) -> str:
        """All claims as one text, each of several on a line of its own."""
        return self.claims if isinstance(self.claims, str) else "\n".join(self.claims)


class EvidenceObject(Shape):
    """The characters of a source from ``start`` up to ``end``."""

    source: str
    document: str | None
    start: int
    end: int
    text: str


class ClaimObject(Shape):
    """A claim, its place in the text, and what sources say to it."""

    claim: str
    start: int
    end: int
    verdict: Literal["supported", "contradicted", "not_found", "could_not_judge"]
    supported: float | None
    evidence: list[EvidenceObject]
    reason: str | None


class CheckAnswer(Shape):
    """What sources say to claims."""

    object: Literal["trust.check"]
    judge: str
    supported: bool | None
    claims: list[ClaimObject]
    cut: int | None


class FindingObject(Shape):
    """Something wrong with an answer, and its place."""

    kind: Literal["factual", "logical", "consistency"]
    start: int
    end: int
    text: str
    says: str


class OutcomeObject(Shape):
    """What became of an answer."""

    action: Action
    sure: bool
    answer: str
    model: str | None
    review: str | None
    confidence: float | None = None


class TrustAnswer(Shape):
    """How sure one may be of an answer."""

    object: Literal["trust.score"]
    confidence: float | None
    judged: bool
    mean: float | None
    families: list[str]
    missing: dict[str, str]
    scale: str | None
    signals: dict[str, dict[str, Any]]
    claims: list[ClaimObject]
    cut: int | None
    findings: list[FindingObject]
    judge: str
    sums_checked: int
    outcome: OutcomeObject
