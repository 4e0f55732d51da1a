"""What a prompt is: its variables, what it says in each language, and the techniques it uses.

Values only. Not here: how a prompt is written down (``file``), kept (``book``), filled in (``rendering``) or asked
(``asking``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from pagoda.core.types import Json
from pagoda.logic.prompts.template import Template

VariableType: TypeAlias = Literal["string", "integer", "number", "boolean", "list"]
Trim: TypeAlias = Literal["start", "middle", "end"]
"""Which part of a text is left out when it is too long."""

Role: TypeAlias = Literal["system", "user", "assistant"]
Choosing: TypeAlias = Literal["fixed", "similar", "diverse"]
AnswerType: TypeAlias = Literal["text", "number", "choice", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A place in a prompt that each use fills: what may stand there, and what stands there by default."""

    name: str
    type: VariableType = "string"
    description: str = ""
    required: bool = True
    default: Json = None
    defaults: Mapping[str, Json] = field(default_factory=dict)
    """By language, where the default is a matter of language."""
    choices: tuple[Json, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    """Characters of a text, items of a list."""
    trim: Trim | None = None
    """What is left out when the prompt does not fit the model; ``None``: it is refused then."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a prompt before it is filled in."""

    role: Role
    body: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A prompt in one language."""

    turns: tuple[Turn, ...]
    example: Template
    """How an example is asked; usually as the question itself is."""
    separator: str = ", "
    """What stands between the items of a list that is written out."""
    mark: str = "Answer:"
    """Stands before an example's answer where the prompt asks for reasoning."""
    layout: Template = Template("", (), frozenset(), frozenset())
    """An example within a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question with its answer, to be shown before the real question."""

    values: Mapping[str, Json]
    answer: str
    reasoning: str = ""
    """The way to the answer, shown where the prompt asks for reasoning."""
    language: str | None = None
    """``None``: fits every language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShot:
    """Examples that are shown, and how they are chosen from those that there are.

    ``similar`` takes those whose vectors are nearest to the question's, ``diverse`` weighs nearness against likeness to
    those chosen before (maximal marginal relevance: Carbonell and Goldstein, 1998).
    """

    examples: tuple[Example, ...]
    choose: Choosing = "fixed"
    count: int = 4
    tokens: int | None = None
    """Most tokens that all examples together may have."""
    by: str | None = None
    """The variable whose texts are compared; ``None``: the first one."""
    relevance: float = 0.5
    """For ``diverse``: 1 looks at nearness alone, 0 at difference alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOfThought:
    """Reasoning in four steps (analyse, plan, compute, answer) before the answer."""

    steps: Literal["four"] = "four"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfConsistency:
    """Several answers drawn at random, of which the most frequent one counts (Wang et al., 2022)."""

    samples: int = 5
    temperature: float = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutput:
    """The answer is JSON that is valid against a schema."""

    schema: Mapping[str, Json]
    name: str = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Techniques:
    """What a prompt uses beside its plain words; each goes with every other. None of them is zero-shot."""

    few_shot: FewShot | None = None
    chain_of_thought: ChainOfThought | None = None
    self_consistency: SelfConsistency | None = None
    structured_output: StructuredOutput | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the answer is found in what the model wrote."""

    type: AnswerType = "text"
    after: Mapping[str, str] = field(default_factory=dict)
    """By language: the answer is what stands after the last of these marks; without one, the whole text."""
    choices: tuple[str, ...] = ()
    """The answers there are, for ``choice``."""
    choices_from: str | None = None
    """The list variable that holds them instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The model that a prompt was written for, and how it is asked. A request's own settings win."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt."""

    name: str
    description: str = ""
    variables: tuple[Variable, ...] = ()
    languages: Mapping[str, Variant] = field(default_factory=dict)
    """The first one speaks where no language is asked for."""
    settings: ModelSettings = ModelSettings()
    techniques: Techniques = Techniques()
    answer: Reading | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptVersion:
    """A prompt as it was at one moment; never changes."""

    prompt: Prompt
    version: int
    tenant: str
    """The team it belongs to; empty for those that come with Pagoda."""
    digest: str
    """SHA-256 of what it says; equal prompts have equal ones."""
    source: str
    """As it was written: YAML."""
    created: datetime | None = None
    note: str = ""

    @property
    def reference(self) -> str:
        """Name and version, as in ``summary@3``."""
        return f"{self.prompt.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReference:
    """Which prompt is meant: by version, by label, or what is live now (its label ``production``, else the newest)."""

    name: str
    version: int | None = None
    label: str | None = None
