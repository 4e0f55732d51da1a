"""Catalog entries as they are written in YAML files: reading with checks, and writing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from pagoda.core.errors import StoreError, UserError
from pagoda.model.catalog.entry import (
    Adapter,
    Derived,
    HubFiles,
    Imported,
    LocalPath,
    ModelEntry,
    RemoteAddress,
    Scripted,
    Source,
    Wheel,
)
from pagoda.model.catalog.reference import check_id

SOURCES: dict[str, type[Source]] = {
    "wheel": Wheel,
    "hub": HubFiles,
    "imported": Imported,
    "path": LocalPath,
    "derived": Derived,
    "remote": RemoteAddress,
    "scripted": Scripted,
    "adapter": Adapter,
}
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (*SOURCES.values(), ModelEntry)}
_KINDS = {kind: name for name, kind in SOURCES.items()}


def read_entries(text: str, where: str) -> list[ModelEntry]:
    """The entries of a YAML list; ``where`` names the file in errors."""
    content = _load(text, where)
    if not isinstance(content, list):
        raise _wrong(where, "it must hold a list of models")
    return [entry_from(item, where) for item in content]


def read_entry(text: str, where: str) -> ModelEntry:
    """The single entry of a YAML file."""
    return entry_from(_load(text, where), where)


def entry_from(data: object, where: str) -> ModelEntry:
    """An entry from plain data; ``StoreError`` says what is wrong with it."""
    if not isinstance(data, dict) or not isinstance(data.get("source"), dict):
        raise _wrong(where, "a model must be a table with a source")
    source = dict(data["source"])
    kind = source.pop("kind", None)
    if kind not in SOURCES:
        raise _wrong(where, f"source.kind is {kind!r}; it must be one of {', '.join(SOURCES)}")
    built = _validate(SOURCES[kind], source, f"{where}, source")
    entry: ModelEntry = _validate(ModelEntry, {**data, "source": built}, where)
    try:
        check_id(entry.id)
    except UserError as error:
        raise _wrong(where, error.message) from error
    return entry


def entry_data(entry: ModelEntry) -> dict[str, Any]:
    """The entry as plain data; values that are the default are left out."""
    data: dict[str, Any] = {}
    for item in dataclasses.fields(entry):
        value = getattr(entry, item.name)
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if item.name != "source" and value != default:
            data[item.name] = _plain(value)
    return {**data, "source": source_data(entry.source)}


def source_data(source: Source) -> dict[str, Any]:
    """A source as plain data, its kind first."""
    return {"kind": _KINDS[type(source)], **_plain(source)}


def write_entry(entry: ModelEntry) -> str:
    """The entry as YAML."""
    return yaml.safe_dump(entry_data(entry), allow_unicode=True, sort_keys=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _load(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _wrong(where, f"it is not YAML ({' '.join(str(error).split())})") from error


def _validate(kind: type[Any], data: Mapping[str, object], where: str) -> Any:
    known = {item.name for item in dataclasses.fields(kind)}
    if unknown := sorted(str(key) for key in data if key not in known):
        raise _wrong(where, f"there is no field {unknown[0]!r}")
    try:
        return _ADAPTERS[kind].validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _wrong(where, f"{place}: {first['msg']}") from error


def _wrong(where: str, why: str) -> StoreError:
    return StoreError(
        f"The model entry in {where} is wrong: {why.rstrip('.')}; correct or remove it.", code="bad_entry"
    )
