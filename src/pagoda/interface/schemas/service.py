"""The service API (``/generate``, ``/api/v1/...``), the model list and health."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagoda.interface.schemas.embedding import MOST_INPUTS, Text
from pagoda.interface.schemas.shared import Length, ModelName, Shape, Strict, Temperature

DEFAULT_LENGTH = 256


class GenerateRequest(Strict):
    """``POST /generate``: text to be answered; ``max_length`` counts new tokens."""

    prompt: str = Field(min_length=1)
    max_length: Length = DEFAULT_LENGTH
    temperature: Temperature | None = None
    model: ModelName | None = None


class GenerationRequest(Strict):
    """``POST /api/v1/generation``: text to be answered."""

    prompt: str = Field(min_length=1)
    max_tokens: Length = DEFAULT_LENGTH
    temperature: Temperature | None = None
    model: ModelName | None = None


class ServiceChatRequest(Strict):
    """``POST /api/v1/chat``: one message to be answered."""

    message: str = Field(min_length=1)
    max_tokens: Length = DEFAULT_LENGTH
    temperature: Temperature | None = None
    model: ModelName | None = None


class TextAnswer(Shape):
    """The answer and the tokens it was generated with."""

    response: str
    tokens_used: int


class ServiceEmbeddingRequest(Strict):
    """``POST /api/v1/embedding``."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
    input_type: Literal["raw", "query", "passage"] = "raw"
    model: ModelName | None = None


class ServiceEmbeddingAnswer(Shape):
    """Vectors in the texts' order."""

    embeddings: list[list[float]]
    dimensions: int
    tokens_used: int


class ModelFacts(Shape):
    """What Pagoda adds to OpenAI's model object."""

    task: Literal["chat", "completion", "embedding"]
    engine: str
    state: Literal["absent", "broken", "unloaded", "loading", "ready", "failed"]
    reason: str = ""
    default: bool
    context: int | None
    dimensions: int | None
    aliases: list[str]


class ModelObject(Shape):
    """One model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    pagoda: ModelFacts


class ModelList(Shape):
    """All models."""

    object: Literal["list"]
    data: list[ModelObject]


class WorkersFacts(Shape):
    """The processes behind one port."""

    wanted: int
    alive: int


class HealthAnswer(Shape):
    """Alive, and for those who may know it the version and the models whose engines are ready."""

    status: Literal["ok"]
    version: str | None = None
    models_loaded: list[str] | None = None
    workers: WorkersFacts | None = None


class DrainAnswer(Shape):
    """The service ends; how many requests it finishes first."""

    status: Literal["draining"]
    requests: int


class ReadyAnswer(Shape):
    """Whether new requests are taken."""

    status: Literal["ready", "draining"]
