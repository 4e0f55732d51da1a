"""The key of a cached answer: one digest over who asks, which model on which engine, and everything that is asked.

It is built from the fields of the dataclasses themselves, so a field added later is part of it unless a reason for
leaving it out is written here. Text is never normalised: what an engine could tell apart, the key tells apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import orjson

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Embed, Generation
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines import engine_version
from pagoda.model.engines.contract import Room
from pagoda.service.cache.store import Key

Request: TypeAlias = Generation | Embed

SILENT_ROOM = {
    "threads": "how fast, not what",
    "parallel": "how many at once; a slot's context is its own",
    "gpu_memory": "how much fits, not what comes of it",
    "spin": "how idle threads wait",
    "vllm_sleep": "where a model is that nobody uses",
    "silence_seconds": "when an engine counts as failed",
}
"""Fields of ``Room`` that do not change answers; all others are part of the key."""

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def cache_key(tenant: str, model: ModelEntry, identity: bytes, room: Room, request: Request) -> Key:
    """The key of a request; ``identity`` is the digest of the model's entry and files.

    The name that the request calls the model by is replaced by its id: an alias is the same model.
    """
    asked = request if request.model == model.id else dataclasses.replace(request, model=model.id)
    parts = [tenant, identity.hex(), orjson.Fragment(_profile(model.engine, room)), type(request).__name__, asked]
    try:
        told = orjson.dumps(parts, default=_plain, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"The request cannot be written as JSON ({error}); correct its text.") from error
    return Key(tenant, model.id, hashlib.blake2b(told, digest_size=32).digest())


@lru_cache(maxsize=64)
def _profile(engine: str, room: Room) -> bytes:
    """What of an engine and its room answers depend on; the same for all requests to a model."""
    fields = [field.name for field in dataclasses.fields(room) if field.name not in SILENT_ROOM]
    return orjson.dumps([engine, engine_version(engine), {name: getattr(room, name) for name in fields}])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
