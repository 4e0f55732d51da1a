"""The tables of the review queue: further records, as in ``records``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pagoda.core.storage.records import Record


class ReviewRecord(Record):
    """An answer that people are to look at. One a request: further reasons are added to it."""

    __tablename__ = "reviews"
    __table_args__ = (Index(None, "team", "request_id", unique=True), Index(None, "team", "state", "created"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    """``waiting`` until as many have judged as are needed; then ``approved``, ``edited`` or ``rejected``."""
    reasons: Mapped[dict[str, Any]]
    """Why it is here, each with what is known about that."""
    held: Mapped[bool]
    """Nobody has seen the answer: it waits for approval."""
    needed: Mapped[int]
    """How many people are to judge it."""
    model: Mapped[str] = mapped_column(String(500))
    prompt_version: Mapped[str | None] = mapped_column(String(300))
    """The kept prompt that was used, as ``name@version``."""
    prompt: Mapped[dict[str, Any] | None]
    """``{"messages": [...]}`` or ``{"text": ...}``; null where nothing was kept."""
    answer: Mapped[str | None] = mapped_column(Text)
    created: Mapped[datetime]
    decided: Mapped[datetime | None]


class JudgementRecord(Record):
    """What one person or one judging model says of a review; before that, the claim that keeps others away."""

    __tablename__ = "review_judgements"
    __table_args__ = (Index(None, "review_id", "reviewer", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    review_id: Mapped[str] = mapped_column(String(64), ForeignKey("reviews.id"))
    reviewer: Mapped[str] = mapped_column(String(200))
    judge: Mapped[bool]
    """A model, whose word decides nothing."""
    claimed: Mapped[datetime]
    until: Mapped[datetime]
    """The claim's end; after it somebody else may have the item."""
    decision: Mapped[str | None] = mapped_column(String(16))
    """``approve``, ``edit``, ``reject``, for judges also ``unsure``; null while it is only claimed."""
    score: Mapped[float | None]
    """A judge's, in [0, 1]."""
    reason: Mapped[str | None] = mapped_column(Text)
    edited: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime | None]
