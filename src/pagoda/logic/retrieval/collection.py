"""What is kept of a collection: values alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.logic.retrieval.splitting import Splitter

DEFAULT_MODEL = "multilingual-e5-small"
MOST_LABELS = 32
LONGEST_LABEL = 500
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_OWN_FIELDS = ("source", "title", "kind")
_LABEL = re.compile(rf"(?!(?:{'|'.join(_OWN_FIELDS)})$)[\w-]{{1,64}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the documents of a collection are split and embedded, settled when it is made."""

    model: str = DEFAULT_MODEL
    limit: int = 480
    """Characters of a chunk at most: with its heading, also in Chinese, fewer tokens than the model takes."""
    overlap: int = 60

    def splitter(self) -> Splitter:
        """What splits its documents. Raises ``InvalidRequest`` for sizes that cannot be."""
        return Splitter(limit=self.limit, overlap=self.overlap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection of a team. ``id`` is never used again, unlike the name; ``revision`` counts its changes."""

    tenant: str
    name: str
    id: str
    plan: Plan
    revision: int
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What is said of a document by who takes it in."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Texts by name, which searches can be narrowed by."""
    keys: tuple[str, ...] | None = None
    """Ids of the team's keys that may see it; ``None``: all."""

    def __post_init__(self) -> None:
        if len(self.labels) > MOST_LABELS:
            raise InvalidRequest(f"A document has {MOST_LABELS} labels at most.", param="labels")
        for name, value in self.labels.items():
            if _LABEL.fullmatch(name) is None or len(value) > LONGEST_LABEL:
                raise InvalidRequest(
                    f"{name[:100]!r} cannot be a label: a name of up to 64 letters, digits, '_' and '-' with a text of "
                    f"up to {LONGEST_LABEL} characters, and none of: {', '.join(sorted(_OWN_FIELDS))}.",
                    param="labels",
                )

    def visible_to(self, key_id: str | None) -> bool:
        """Whether a key may see the document; this machine's own user sees all."""
        return self.keys is None or key_id is None or key_id in self.keys


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """A document without its text."""

    id: str
    source: str
    digest: str
    size: int
    kind: str
    encoding: str
    title: str
    chunks: int
    tags: Tags = field(default_factory=Tags)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        told = {name: value for name, value in asdict(self).items() if name != "tags"}
        return told | {"labels": dict(self.tags.labels), "keys": self.tags.keys}


Listed: TypeAlias = tuple[str, str, str, Mapping[str, str], list[str] | None]
"""What can change of a document that keeps its id: source, title, kind, labels, and keys that may see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a document, ``text[start:end]`` in characters, with its vector (little-endian float32)."""

    start: int
    end: int
    heading: str
    vector: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk as it is found: exactly the characters from ``start`` to ``end`` of a document's text."""

    document: str
    source: str
    title: str
    heading: str
    start: int
    end: int
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPassage:
    """A passage with what it is found by and who may find it."""

    passage: Passage
    vector: bytes
    tags: Tags
    kind: str

    def said(self, field: str) -> str | None:
        """What a field of its document says: a label, ``source``, ``title`` or ``kind``; ``None``: nothing."""
        own = {"source": self.passage.source, "title": self.passage.title, "kind": self.kind}
        return own.get(field) or self.tags.labels.get(field)


def check_name(name: str) -> str:
    """The name, if a collection may have it. Raises ``InvalidRequest``."""
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"{name[:100]!r} is no name of a collection: up to 100 small letters, digits, '.', '_' and '-', and a "
            "letter or digit first.",
            param="collection",
        )
    return name


def missing(name: str) -> NotFound:
    """The error for a collection that does not exist."""
    return NotFound(f"There is no collection {name[:100]!r}; `pagoda rag list` names them all.", param="collection")


def plan_from(model: str, settings: Mapping[str, Any]) -> Plan:
    """A plan as it was kept."""
    return Plan(model=model, limit=int(settings["limit"]), overlap=int(settings["overlap"]))
