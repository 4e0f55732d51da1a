"""The time now, and reckoning with dates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pagoda.core.errors import ToolError


def tell_time(zone: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> str:
    """Date, time and weekday in a time zone of the IANA data base. Raises ``ToolError`` for an unknown one."""
    try:
        there = ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolError(
            f"the time zone {zone[:50]!r} is not known; write it as Europe/Paris or Asia/Shanghai"
        ) from error
    return now().astimezone(there).strftime("%Y-%m-%d %H:%M:%S %z, %A")


def shift_date(day: str, days: int) -> str:
    """The date some days after (or, below zero, before) a date written YYYY-MM-DD, with its weekday."""
    try:
        return (_date(day) + timedelta(days=days)).strftime("%Y-%m-%d, %A")
    except OverflowError as error:
        raise ToolError(f"{days} days from {day} is outside the calendar") from error


def days_between(first: str, second: str) -> int:
    """Days from the first date to the second, both written YYYY-MM-DD."""
    return (_date(second) - _date(first)).days


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError as error:
        raise ToolError(f"{text[:50]!r} is not a date; write it as 2026-11-29") from error
