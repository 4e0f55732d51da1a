"""The tables of agents' runs. Their status and times are in ``runs``, as those of every run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pagoda.core.storage.records import JsonValue, Record


class AgentRecord(Record):
    """What a run of the kind ``agent`` has beside other runs: whose it is, who works on it, what came of it."""

    __tablename__ = "agents"

    run_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    """The team whose run it is; for others it does not exist."""
    owner: Mapped[str | None] = mapped_column(String(400))
    """The process that works on it (id, start, host); it alone writes steps."""
    heartbeat: Mapped[datetime | None]
    cancelling: Mapped[datetime | None]
    answer: Mapped[str | None] = mapped_column(Text)
    limited: Mapped[str | None] = mapped_column(String(300))
    """The limit at which it had to answer."""


class AgentStepRecord(Record):
    """A step, written before it happens and again when it has: a model's turn, or a call of a tool."""

    __tablename__ = "agent_steps"

    run_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(8))
    """``model`` or ``call``."""
    state: Mapped[str] = mapped_column(String(16))
    input: Mapped[dict[str, Any]]
    output: Mapped[dict[str, Any] | None] = mapped_column(JsonValue)
    begun: Mapped[datetime | None]
    ended: Mapped[datetime | None]
