"""Two tools to try agents with. Their backends are fakes and say so: nothing is forecast, no mail is sent.

Name them in ``tools.functions``, as ``docs.examples.example_tools:weather``, and run where this folder can be imported.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path

from pagoda.core.types import Json
from pagoda.logic.tools.function import tool_from
from pagoda.logic.tools.tool import Occasion

OUTBOX = Path(os.environ.get("EXAMPLE_OUTBOX", "outbox.jsonl"))
"""Where the example's mail is put instead of being sent."""


async def look_up_weather(city: str) -> dict[str, Json]:
    """Tell the weather of a city.

    Args:
        city: The city's name.
    """
    number = hashlib.sha256(city.strip().lower().encode()).digest()[0]
    return {"city": city, "celsius": number % 35, "source": "example data, not a forecast"}


def put_into_outbox(to: str, subject: str, body: str, occasion: Occasion) -> str:
    """Send an e-mail.

    Args:
        to: The receiver's address.
        subject: The subject.
        body: The text.
    """
    row = {"key": occasion.key, "to": to, "subject": subject, "body": body}
    with OUTBOX.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return f"An example mail to {to} was put into {OUTBOX.name}; nothing was sent."


async def find_in_outbox(key: str) -> Json | None:
    """Whether the mail of a call lies in the outbox: its receipt."""
    return await asyncio.to_thread(_look, key)


def _look(key: str) -> Json | None:
    rows = map(json.loads, OUTBOX.read_text(encoding="utf-8").splitlines()) if OUTBOX.exists() else ()
    found = next((row for row in rows if row["key"] == key), None)
    return None if found is None else f"An example mail to {found['to']} was put into {OUTBOX.name} before."


weather = tool_from(look_up_weather, name="weather", read_only=True, idempotent=True)
send_email = tool_from(put_into_outbox, name="send_email", needs_approval=True, receipt=find_in_outbox)
send_email_once = tool_from(put_into_outbox, name="send_email_once", receipt=find_in_outbox)
"""The same without approval."""
