"""``/api/v1/rag``: collections, documents, searches and questions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator

from pagoda.interface.schemas.shared import ModelName, Shape, Strict
from pagoda.interface.schemas.trust import TrustPolicy
from pagoda.logic.retrieval.collection import LONGEST_LABEL, MOST_LABELS, Plan, Tags
from pagoda.logic.retrieval.question import FLOOR, MOST_HITS, Method, Mode, Refinement

_PLAN = Plan()

CollectionName = Annotated[str, Field(min_length=1, max_length=100)]
LabelText = Annotated[str, Field(max_length=LONGEST_LABEL)]
KeyId = Annotated[str, Field(min_length=1, max_length=100)]


class CollectionRequest(Strict):
    """How the documents of a new collection are split and embedded; a collection that exists must have the same."""

    model: ModelName | None = Field(None, description="The embedding model; null: the default one.")
    limit: int = Field(_PLAN.limit, ge=1, le=100_000, description="Characters of a chunk at most.")
    overlap: int = Field(_PLAN.overlap, ge=0, le=50_000, description="Characters that neighbours share at most.")


class CollectionObject(Shape):
    """A collection."""

    name: str
    model: str
    limit: int
    overlap: int
    documents: int
    chunks: int
    created: str


class CollectionList(Shape):
    """A team's collections."""

    object: Literal["list"] = "list"
    data: list[CollectionObject]


class DocumentObject(Shape):
    """A document without its text."""

    id: str
    source: str
    title: str
    kind: str
    encoding: str
    digest: str = Field(description="SHA-256 of the bytes that were read.")
    size: int
    chunks: int
    labels: dict[str, str]
    keys: list[str] | None = Field(description="Ids of the keys that may see it; null: all of the team.")


class DocumentList(Shape):
    """The documents of a collection that the asking key may see."""

    object: Literal["list"] = "list"
    data: list[DocumentObject]


class DocumentText(DocumentObject):
    """A document with (a part of) its text."""

    start: int
    end: int
    length: int = Field(description="Of the whole text, in characters.")
    text: str = Field(description="Exactly the characters from start to end.")


class Failure(Shape):
    """A file that was not taken in."""

    source: str
    error: str


class Renaming(Shape):
    """A document that was only renamed."""

    source: str
    now: str


class IngestionReport(Shape):
    """What became of the files."""

    added: list[str]
    changed: list[str]
    renamed: list[Renaming]
    removed: list[str]
    failed: list[Failure]
    unchanged: int
    chunks: int = Field(description="That were embedded.")


class Deleted(Shape):
    """What was deleted."""

    collection: str
    documents: int


class Tagging(Strict):
    """What is said of a document from now on."""

    labels: dict[str, LabelText] = Field({}, max_length=MOST_LABELS)
    keys: Annotated[list[KeyId], Field(max_length=1000)] | None = Field(
        None, description="Ids of the keys that may see it; null: all of the team."
    )

    def plain(self) -> Tags:
        """As the book takes it. Raises ``InvalidRequest``."""
        return Tags(labels=self.labels, keys=None if self.keys is None else tuple(self.keys))


class Narrowing(Strict):
    """What a search looks at, and what it does beside ranking."""

    collection: CollectionName
    limit: int = Field(5, ge=1, le=MOST_HITS, description="Passages at most.")
    where: dict[str, Annotated[list[LabelText], Field(min_length=1, max_length=100)] | LabelText] = Field(
        {},
        max_length=MOST_LABELS,
        description="Only documents with (one of) these values in a label, or in source, title or kind.",
    )
    diversity: float = Field(0.0, ge=0, le=1, description="How much a passage that resembles better ones falls behind.")
    reranker: ModelName | None = Field(None, description="A model that reorders what was found.")

    def refinement(self, reranker: str | None) -> Refinement:
        """As the search takes it, with the reranker's id."""
        where = {name: (value,) if isinstance(value, str) else tuple(value) for name, value in self.where.items()}
        return Refinement(where=where, diversity=self.diversity, reranker=reranker)


class SearchRequest(Narrowing):
    """A search."""

    query: str = Field(min_length=1, max_length=100_000)
    mode: Mode = "fused"


class Turn(Strict):
    """A turn of the conversation before the question."""

    role: Literal["user", "assistant"]
    content: str = Field(max_length=100_000)


class AskRequest(Narrowing):
    """A question, answered from the passages that are found."""

    question: str = Field(min_length=1, max_length=4000)
    model: ModelName | None = None
    floor: float = Field(FLOOR, ge=-1, le=1, description="Ask no model unless a passage's cosine is as high as this.")
    method: Method = Field("auto", description="How passages that do not fit the context at once are shown.")
    history: list[Turn] = Field([], max_length=100, description="For a follow-up question, which is rewritten by it.")
    return_source_documents: StrictBool = Field(True, description="Send what the model was shown.")
    stream: StrictBool = False
    trust: TrustPolicy | None = Field(
        None, description="Say how sure the answer is, and what becomes of it below the bar; not while streaming."
    )

    @field_validator("trust")
    @classmethod
    def _check_trust(cls, trust: TrustPolicy | None, others: ValidationInfo) -> TrustPolicy | None:
        if trust is not None and others.data.get("stream"):
            raise ValueError("trust looks at a whole answer; leave stream out")
        return trust


class PassageObject(Shape):
    """A passage: exactly the characters from start to end of a document's text."""

    number: int | None = None
    document: str
    source: str
    title: str
    heading: str
    start: int
    end: int
    text: str
    labels: dict[str, str]
    score: float | None = None
    similarity: float | None = None


class SearchAnswer(Shape):
    """What was found, best first."""

    object: Literal["list"] = "list"
    data: list[PassageObject]


class AskAnswer(Shape):
    """An answer and what it rests on."""

    outcome: Literal["answered", "nothing-close", "not-in-documents"] = Field(
        description="Of the question; what a policy of trust did with the answer is in `trust`."
    )
    answer: str = Field(
        description="With trust, what the policy made of it; another text than the model's cites nothing."
    )
    citations: list[PassageObject] = Field(description="What each [number] in the answer stands for.")
    citations_removed: int = Field(description="Citations of passages that do not exist, taken out of the answer.")
    citations_added: int = Field(
        description="Sentences that cited nothing and were given the passage that bears them out, by the local judge."
    )
    query: str = Field(description="What was searched for; a follow-up question is rewritten.")
    passages: list[PassageObject] | None = None
    model: str | None
    prompt: str | None
    trust: dict[str, Any] | None = Field(None, description="As POST /api/v1/trust/score tells it, where asked for.")
