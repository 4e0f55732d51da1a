"""A key and its limits as JSON, for the API and for commands with ``--json``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pagoda.service.keys.key import NANO, Limits

if TYPE_CHECKING:
    from pagoda.core.storage.records import AuditRecord
    from pagoda.service.keys.book import Held, Issued


def held_json(held: Held) -> dict[str, Any]:
    """A key without its secret."""
    key = held.key
    return {
        "object": "key",
        "id": key.id,
        "name": key.name,
        "shown": held.shown,
        "team": key.team,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else list(key.models),
        "priority": key.priority,
        "limits": limits_json(key.limits),
        "team_limits": limits_json(key.team_limits),
        "created": _time(key.created),
        "expires": _time(key.expires),
        "revoked": _time(key.revoked),
        "last_used": _time(held.last_used),
    }


def issued_json(issued: Issued) -> dict[str, Any]:
    """A key with its secret, which is shown this once."""
    return held_json(issued.held) | {"secret": issued.secret}


def limits_json(limits: Limits) -> dict[str, Any]:
    """Limits with money in its own unit."""
    shown = asdict(limits)
    money = shown.pop("budget_money")
    return shown | {"budget": None if money is None else money / NANO}


def audit_json(row: AuditRecord) -> dict[str, Any]:
    """A line of the audit log."""
    told = {name: getattr(row, name) for name in ("who", "address", "action", "subject", "outcome")}
    return {"id": row.id, "at": _time(row.at), **told}


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")
