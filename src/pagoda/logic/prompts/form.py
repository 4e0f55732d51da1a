"""The form in which prompts are written down, as pydantic reads it from YAML.

Not here: reading a file (``file``) and what a prompt is once it is read (``prompt``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pagoda.logic.prompts.template import NAME, PART
from pagoda.logic.prompts.wording import NEWEST

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,99}$"
LABEL_PATTERN = r"^[a-z][a-z0-9._-]{0,63}$"
_LANGUAGE = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
_RESERVED = ("answer", "reasoning", "language")

Text = Annotated[str, Field(max_length=200_000)]
Mark = Annotated[str, Field(min_length=1, max_length=200)]
Language = Annotated[str, Field(pattern=_LANGUAGE)]
Scalar = str | bool | int | float


class Strict(BaseModel):
    """A part of a file: unknown words are refused, since what is ignored in silence misleads."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=(), populate_by_name=True)


class VariableForm(Strict):
    """A variable."""

    type: Literal["string", "integer", "number", "boolean", "list"] = "string"
    description: str = Field("", max_length=1000)
    required: bool | None = None
    default: Any = Field(None, description="A value, or one by language.")
    choices: list[Scalar] = Field([], max_length=1000)
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = Field(None, ge=0)
    trim: Literal["start", "middle", "end"] | None = None

    @model_validator(mode="after")
    def _check(self) -> VariableForm:
        if self.trim is not None and self.type != "string":
            raise ValueError("only a string can be trimmed")
        if (self.minimum, self.maximum) != (None, None) and self.type not in ("integer", "number"):
            raise ValueError("minimum and maximum are for integers and numbers")
        if self.max_length is not None and self.type not in ("string", "list"):
            raise ValueError("max_length is for strings and lists")
        if self.required and self.default is not None:
            raise ValueError("a variable with a default is not required; leave one of the two out")
        return self


class ExampleForm(BaseModel):
    """An example: its answer, and a value for each variable that its question uses."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    answer: Text
    reasoning: Text = ""
    language: Language | None = None


class FewShotForm(Strict):
    """Examples, and how they are chosen."""

    examples: list[ExampleForm] = Field(min_length=1, max_length=10_000)
    choose: Literal["fixed", "similar", "diverse"] = "fixed"
    count: int = Field(4, ge=0, le=100)
    tokens: int | None = Field(None, ge=1)
    by: str | None = None
    relevance: float = Field(0.5, ge=0, le=1)


class ChainOfThoughtForm(Strict):
    """Reasoning before the answer."""

    steps: Literal["four"] = "four"


class SelfConsistencyForm(Strict):
    """Several samples and a vote."""

    samples: int = Field(5, ge=2, le=100)
    temperature: float = Field(0.7, gt=0, le=2)


class StructuredOutputForm(Strict):
    """JSON of a schema."""

    schema_: dict[str, Any] = Field(alias="schema")
    name: str = Field("answer", pattern=r"^[A-Za-z0-9_-]{1,64}$")


class TechniquesForm(Strict):
    """What is used beside the plain words. ``name: {}`` takes a technique as it is."""

    few_shot: FewShotForm | None = Field(None, alias="few-shot")
    chain_of_thought: ChainOfThoughtForm | None = Field(None, alias="chain-of-thought")
    self_consistency: SelfConsistencyForm | None = Field(None, alias="self-consistency")
    structured_output: StructuredOutputForm | None = Field(None, alias="structured-output")


class AnswerForm(Strict):
    """How the answer is found in what the model wrote."""

    type: Literal["text", "number", "choice", "json"] = "text"
    after: Mark | dict[Language, Mark] | None = None
    choices: list[str] | str | None = Field(
        None, description="The answers there are, or the list variable that holds them."
    )

    @model_validator(mode="after")
    def _check(self) -> AnswerForm:
        if (self.type == "choice") != (self.choices is not None):
            raise ValueError("choices belong to the type choice, and that type needs them")
        return self


class SettingsForm(Strict):
    """How the model is asked."""

    model: str | None = Field(None, min_length=1, max_length=500)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = None
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    stop: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field([], max_length=16)


class VariantForm(Strict):
    """A language: the three parts of a plain prompt, or messages one by one."""

    task: Text | None = None
    input: Text | None = None
    requirements: Text | None = None
    messages: list[dict[Literal["system", "user", "assistant"], Text]] | None = Field(
        None, min_length=1, max_length=1000
    )
    example: Text | None = None
    parts: dict[str, Text] = Field({}, max_length=100)
    separator: str | None = Field(None, max_length=20)

    @model_validator(mode="after")
    def _check(self) -> VariantForm:
        plain = [self.task, self.input, self.requirements]
        if (self.messages is None) == (plain == [None] * 3):
            raise ValueError("give task, input and requirements, or messages")
        if self.messages is None and (self.task is None or self.input is None):
            raise ValueError("task and input belong together")
        if any(len(message) != 1 for message in self.messages or ()):
            raise ValueError("each message is one role with its text, such as `- user: Hello`")
        if wrong := next((name for name in self.parts if not PART.fullmatch(name)), None):
            raise ValueError(f"{wrong!r} cannot name a part; use letters, digits, hyphens and underscores")
        return self


class PromptForm(Strict):
    """A whole file."""

    name: str = Field(pattern=NAME_PATTERN)
    version: int = Field(1, ge=1, le=2**31 - 1)
    description: str = Field("", max_length=2000)
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field([], max_length=20)
    variables: dict[str, VariableForm | None] = Field({}, max_length=200)
    settings: SettingsForm = SettingsForm()
    techniques: TechniquesForm = TechniquesForm()
    answer: AnswerForm | None = None
    languages: dict[Language, VariantForm] = Field(min_length=1, max_length=50)
    wording: int = Field(NEWEST, ge=1)

    @model_validator(mode="after")
    def _check(self) -> PromptForm:
        for name in self.variables:
            if name in _RESERVED:
                raise ValueError(f"{name!r} cannot name a variable, since examples use that word; choose another")
            if not NAME.fullmatch(name) or name.startswith("_"):
                raise ValueError(f"{name!r} cannot name a variable; use letters, digits and underscores")
        return self
