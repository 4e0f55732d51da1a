"""Calls of tools that no agent makes: by a person, or by a client over MCP. The audit log tells of each.

A line is written before a call and one after it, so that a call in whose middle everything ended is known too. Not
here: the calls of agents, which are steps of their runs (``pagoda.logic.agents.journal``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pagoda.core.errors import StoreError
from pagoda.core.types import Call, new_id
from pagoda.logic.tools.performing import Outcome, perform
from pagoda.logic.tools.tool import Occasion, Tool
from pagoda.service.keys.book import LOCAL, Actor, KeyBook, audit_row

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hand:
    """Whose calls they are, and where they are told of."""

    book: KeyBook
    action: str
    """The way by which they come, as the log names it."""
    actor: Actor = LOCAL


async def call_by_hand(hand: Hand, tool: Tool, arguments: Any, call: Call) -> Outcome:
    """Call a tool. Raises ``StoreError`` where the log cannot be written: then nothing was called."""
    key = new_id("byhand")
    subject, told = f"{tool.name} {key}", "stopped"
    await hand.book.enter_audit([audit_row(hand.actor, hand.action, subject, "begun")])
    try:
        outcome = await perform(tool, arguments, Occasion(call=call, key=key))
        told = "done" if outcome.error is None else "failed"
    finally:
        try:
            await hand.book.enter_audit([audit_row(hand.actor, hand.action, subject, told)])
        except StoreError as error:  # it has happened: an error here would have it made again
            logger.error("the audit log does not tell that %s ended (%s): %s", subject, told, error)
    return outcome
