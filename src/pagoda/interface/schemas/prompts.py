"""``/api/v1/prompts``, and the prompt that a chat request may name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pagoda.interface.schemas.shared import Length, ModelName, Shape, Strict
from pagoda.logic.prompts.file import MOST_CHARACTERS
from pagoda.logic.prompts.form import LABEL_PATTERN, NAME_PATTERN

PromptName = Annotated[str, Field(pattern=NAME_PATTERN)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
Language = Annotated[str, Field(min_length=2, max_length=35)]
Variables = Annotated[dict[str, str | bool | int | float | list[str | int | float] | None], Field(max_length=200)]


class PromptUse(Strict):
    """Which version, and what stands in its variables."""

    version: Version | None = None
    label: Label | None = Field(None, description="Instead of a version; neither: production, else the newest.")
    variables: Variables = Field({})
    language: Language | None = Field(None, description="None: the prompt's first.")

    @model_validator(mode="after")
    def _check(self) -> PromptUse:
        if self.version is not None and self.label is not None:
            raise ValueError("version and label are two ways to say which one; give one")
        return self

    def given(self) -> dict[str, Any]:
        """The variables that were given; null stands for none."""
        return {name: value for name, value in self.variables.items() if value is not None}


class NamedPrompt(PromptUse):
    """A kept prompt, filled in by the service."""

    name: PromptName


class PromptTry(PromptUse):
    """A prompt to be filled in, or asked."""

    model: ModelName | None = None
    max_tokens: Length | None = Field(None, description="Room for the answer; null: what the prompt says.")


class PromptImport(Strict):
    """A prompt to be kept as its next version."""

    source: str = Field(min_length=1, max_length=MOST_CHARACTERS, description="The prompt's file: YAML.")
    note: str = Field("", max_length=500)
    label: Label | None = Field(None, description="Let this label mean the new version.")


class LabelMove(Strict):
    """What a label shall mean."""

    version: Version
    expected: Version | None = Field(None, description="Refuse unless the label means this version until now.")
    note: str = Field("", max_length=500)


class LabelNote(Strict):
    """Why a label goes back."""

    note: str = Field("", max_length=500)


class PromptObject(Shape):
    """A prompt in one version."""

    object: Literal["prompt"]
    name: str
    version: int
    description: str
    origin: Literal["team", "packaged"]
    languages: list[str]
    variables: list[dict[str, Any]]
    techniques: list[str]
    tags: list[str]
    labels: dict[str, int]
    digest: str
    created: str | None
    note: str


class PromptSource(PromptObject):
    """A prompt with its file."""

    source: str


class SavedPrompt(PromptObject):
    """A prompt that was kept."""

    saved: bool = Field(description="False: the newest version says the same already.")


class PromptList(Shape):
    """Prompts."""

    object: Literal["list"]
    data: list[PromptObject]


class PromptChange(Shape):
    """A version that was kept, or a label that was moved."""

    id: int
    at: str
    who: str
    name: str
    action: Literal["saved", "moved", "rolled-back", "removed"]
    label: str | None
    before: int | None
    version: int | None
    note: str


class PromptHistory(Shape):
    """Changes, newest first."""

    object: Literal["list"]
    data: list[PromptChange]


class PromptDiff(Shape):
    """The difference of two versions."""

    object: Literal["prompt.diff"]
    name: str
    before: int
    after: int
    diff: str


class RenderedPrompt(Shape):
    """What a model would get."""

    object: Literal["prompt.rendered"]
    name: str
    version: int
    language: str
    model: str
    messages: list[dict[str, Any]]
    settings: dict[str, Any]
    tokens: int | None
    context: int | None
    examples: int
    dropped_examples: int
    trimmed: list[str]


class PromptVote(Shape):
    """What several samples agree on."""

    answer: str | None
    votes: int
    samples: int
    unread: int
    texts: list[str]


class PromptAnswer(Shape):
    """What a prompt gave."""

    object: Literal["prompt.answer"]
    name: str
    version: int
    language: str
    model: str
    answer: str | None
    text: str
    finish_reason: str
    vote: PromptVote | None
    prompt_tokens: int
    completion_tokens: int
