"""The tables of online experiments and of what people say about answers: further records, as in ``records``.

A unit is never written as it was named, only as a digest: experiments need not know people.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pagoda.core.storage.records import Record


class ExperimentRecord(Record):
    """An experiment: what is compared, and to whom it is open now."""

    __tablename__ = "experiments"
    __table_args__ = (Index(None, "team", "name", unique=True), Index(None, "state"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    """Whose calls it holds for."""
    name: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(16))
    """``draft``, ``running`` or ``stopped``."""
    target_kind: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(500))
    design: Mapped[dict[str, Any]]
    """What does not change any more once it runs."""
    exposure: Mapped[float]
    """Share of all units that take part now."""
    slices: Mapped[dict[str, Any]]
    """``{"slices": [{"upto", "shares"}]}``: how each part of the units was shared out when it was opened."""
    revision: Mapped[int]
    """Counts changes, so that of two at once one is refused."""
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    stopped: Mapped[datetime | None]


class ExposureRecord(Record):
    """A request that was answered under an experiment."""

    __tablename__ = "experiment_exposures"
    __table_args__ = (Index(None, "request_id"), Index(None, "experiment_id", "unit"))

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    experiment_id: Mapped[str] = mapped_column(String(64))
    team: Mapped[str] = mapped_column(String(64))
    unit: Mapped[str] = mapped_column(String(64))
    variant: Mapped[str] = mapped_column(String(64))
    slice: Mapped[int]
    request_id: Mapped[str] = mapped_column(String(128))


class OutcomeRecord(Record):
    """A unit's outcome by one metric. The first counts, in the order of ``id``; what chance drew stands beside it."""

    __tablename__ = "experiment_outcomes"
    __table_args__ = (Index(None, "experiment_id", "metric", "unit", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    experiment_id: Mapped[str] = mapped_column(String(64))
    metric: Mapped[str] = mapped_column(String(64))
    unit: Mapped[str] = mapped_column(String(64))
    variant: Mapped[str] = mapped_column(String(64))
    slice: Mapped[int]
    value: Mapped[float]


class FeedbackRecord(Record):
    """What somebody says about an answer, or about a unit of an experiment."""

    __tablename__ = "feedback"
    __table_args__ = (Index(None, "team", "subject", "author", unique=True), Index(None, "team", "at"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime]
    team: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(200))
    """``request:ID``, or ``unit:EXPERIMENT:DIGEST``."""
    author: Mapped[str] = mapped_column(String(500))
    """Who says it, as the client names them; else the key."""
    thumb: Mapped[str | None] = mapped_column(String(8))
    score: Mapped[float | None]
    text: Mapped[str | None] = mapped_column(Text)
    correction: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[dict[str, Any]]
    """Further outcomes by name."""
    prompt: Mapped[dict[str, Any] | None]
    """``{"messages": [...]}``, where the client sent them along."""
    answer: Mapped[str | None] = mapped_column(Text)
