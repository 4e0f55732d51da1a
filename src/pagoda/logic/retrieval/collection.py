"""What is kept of a collection: values alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.logic.retrieval.splitting import Splitter

DEFAULT_NAME = "documents"
DEFAULT_MODEL = "multilingual-e5-small"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


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

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


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
