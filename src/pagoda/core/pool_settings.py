"""``[pools.NAME]``: several engines under one model name. The values, and their reading from a nested table of a file.

The other sections are flat and can be set by environment and flags as well; a pool has a list of replicas and can not.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pagoda.core.setting_values import PARSERS
from pagoda.core.settings_field import setting

POLICIES = ("prefix_affinity", "least_outstanding", "power_of_two", "round_robin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """One entry of ``[[pools.NAME.replicas]]``: a model of this machine, or of the OpenAI address ``url``."""

    model: str = setting("", "Name of the model, here or at the address.")
    url: str = setting("", "OpenAI-compatible address, up to and with /v1; empty: a model of this machine.")
    key_env: str = setting("", "Environment variable of the service that holds the address's key.")
    weight: float = setting(1.0, "Share of the requests, in relation to the other replicas'.", low=0.01, high=1000)
    zone: str = setting("", "Where it stands; the pool's own zone goes first.")
    copies: int = setting(1, "Engines of a model of this machine.", low=1, high=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """One ``[pools.NAME]``."""

    name: str
    replicas: tuple[ReplicaSettings, ...] = ()
    task: str = setting("", "Task of its models; empty: that of a model of this machine among them, else chat.")
    policy: str = setting("prefix_affinity", "How a replica is chosen.", choices=POLICIES)
    zone: str = setting("", "The zone of this machine: its replicas go first while they have room.")
    fallbacks: tuple[str, ...] = setting((), "Models that answer in its place when no replica can, in this order.")
    interrupted: str = setting(
        "continue", "What becomes of a stream whose replica fails.", choices=("continue", "error")
    )
    wait_seconds: float = setting(0.0, "Longest wait for a replica when there is none, seconds.", low=0, high=600)
    dns: str = setting("", "Address whose every DNS record is a replica, http://name:port/v1.")
    dns_model: str = setting("", "Name of the model at the addresses found by DNS; empty: the pool's name.")
    dns_key_env: str = setting("", "Environment variable that holds their key.")
    dns_seconds: float = setting(30.0, "Time after which DNS is asked again, seconds.", low=0.05)


def read_pools(table: Any, origin: str) -> tuple[dict[str, PoolSettings], list[str]]:
    """The pools of a file's ``[pools]`` table, and every mistake in it."""
    if not isinstance(table, dict):
        return {}, [f"pools (from {origin}): must be tables named [pools.NAME]"]
    pools: dict[str, PoolSettings] = {}
    mistakes: list[str] = []
    for name, values in table.items():
        key = f"pools.{name}"
        if not isinstance(values, dict):
            mistakes.append(f"{key} (from {origin}): must be a table; write it as [pools.NAME]")
            continue
        if not _NAME.fullmatch(name):
            mistakes.append(f"{key} (from {origin}): a name is made of letters, digits and . _ - + @")
        given = dict(values)
        replicas = _read_replicas(key, given.pop("replicas", []), origin, mistakes)
        fields = _read_fields(PoolSettings, key, given, origin, mistakes)
        pool = PoolSettings(name=name, replicas=replicas, **fields)
        mistakes += _refuse_senseless(pool, key, origin)
        pools[name] = pool
    return pools, mistakes


def read_replica(values: Mapping[str, Any], where: str) -> tuple[ReplicaSettings, list[str]]:
    """A replica from plain data, and every mistake in it."""
    mistakes: list[str] = []
    fields = _read_fields(ReplicaSettings, "replica", values, where, mistakes)
    replica = ReplicaSettings(**fields)
    return replica, [*mistakes, *_refuse_replica(replica, "replica", where)]


def _read_replicas(key: str, rows: Any, origin: str, mistakes: list[str]) -> tuple[ReplicaSettings, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        mistakes.append(f"{key}.replicas (from {origin}): must be tables, each written as [[{key}.replicas]]")
        return ()
    found = []
    for place, row in enumerate(rows):
        inner = f"{key}.replicas[{place}]"
        replica = ReplicaSettings(**_read_fields(ReplicaSettings, inner, row, origin, mistakes))
        mistakes += _refuse_replica(replica, inner, origin)
        found.append(replica)
    return tuple(found)


def _read_fields(
    kind: type[Any], key: str, given: Mapping[str, Any], origin: str, mistakes: list[str]
) -> dict[str, Any]:
    """The values of a table in their types; mistakes are added to the list."""
    rules = {item.name: item for item in dataclasses.fields(kind) if item.metadata}
    hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for name, raw in given.items():
        if name not in rules:
            close = difflib.get_close_matches(name, rules, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            mistakes.append(f"{key}.{name} (from {origin}): there is no such setting{meant}")
            continue
        annotation = typing.get_origin(hints[name]) or hints[name]
        try:
            value = PARSERS[annotation](raw)
            _check(rules[name].metadata, value)
        except ValueError as error:
            mistakes.append(f"{key}.{name} = {raw!r} (from {origin}): {error}")
            continue
        found[name] = tuple(value) if annotation is tuple else value
    return found


def _check(rule: Mapping[str, Any], value: Any) -> None:
    if rule["choices"] and value not in rule["choices"]:
        raise ValueError("must be one of " + ", ".join(rule["choices"]))
    if rule["low"] is not None and value < rule["low"]:
        raise ValueError(f"must be at least {rule['low']:g}")
    if rule["high"] is not None and value > rule["high"]:
        raise ValueError(f"must be at most {rule['high']:g}")


def _refuse_replica(replica: ReplicaSettings, key: str, origin: str) -> list[str]:
    mistakes = []
    if not replica.model:
        mistakes.append(f"{key}.model (from {origin}): name the model")
    if replica.url and not _is_address(replica.url):
        mistakes.append(f"{key}.url = {replica.url!r} (from {origin}): must be an address such as http://host:8000/v1")
    if replica.url and replica.copies > 1:
        mistakes.append(f"{key}.copies (from {origin}): only a model of this machine has copies")
    return mistakes


def _refuse_senseless(pool: PoolSettings, key: str, origin: str) -> list[str]:
    mistakes = []
    if pool.task not in ("", "chat", "completion", "embedding"):
        mistakes.append(f"{key}.task = {pool.task!r} (from {origin}): must be one of chat, completion, embedding")
    if pool.dns and (not _is_address(pool.dns) or urlsplit(pool.dns).scheme != "http"):
        mistakes.append(f"{key}.dns = {pool.dns!r} (from {origin}): must be an address such as http://name:8000/v1")
    if pool.name in pool.fallbacks:
        mistakes.append(f"{key}.fallbacks (from {origin}): a pool cannot stand in for itself")
    return mistakes


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
