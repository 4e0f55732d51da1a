"""What is said of each model: the state of its engine where there is one, else that of its files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pagoda.interface.context import ModelStatus
from pagoda.model.catalog.entry import ModelEntry, host_id
from pagoda.model.catalog.opening import Shelf


def statuses_of(shelf: Shelf, engines: Mapping[str, Mapping[str, Any]], pulling: Collection[str]) -> list[ModelStatus]:
    """The states of all models; ``engines`` by model id. Looks at files: not on the event loop."""
    return [_status(shelf, entry, engines.get(host_id(entry)), pulling) for entry in shelf.catalog.entries()]


def _status(shelf: Shelf, entry: ModelEntry, engine: Mapping[str, Any] | None, pulling: Collection[str]) -> ModelStatus:
    aliases = tuple(shelf.catalog.names_of(entry))
    if entry.id in pulling:
        return ModelStatus(entry=entry, state="pulling", reason="", aliases=aliases)
    files = shelf.store.state(entry)
    if files.state in ("absent", "broken") and (engine is None or engine["state"] not in ("ready", "asleep")):
        return ModelStatus(entry=entry, state=files.state, reason=files.reason, aliases=aliases)
    if engine is None:
        return ModelStatus(entry=entry, state="unloaded", reason="", aliases=aliases)
    return ModelStatus(entry=entry, state=engine["state"], reason=engine["reason"], aliases=aliases, engine=engine)
