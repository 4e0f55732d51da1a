"""An embedded service that ends without guests: nobody finds it any more before it stops to listen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pagoda.application.serving import _leave_with_guests
from pagoda.service.presence import Notice, Presence


class Server:
    """As much of a server as is asked to end."""

    def __init__(self, presence: Presence) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.found: list[Notice | None] = []
        self._presence = presence

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "should_exit":
            self.found.append(self._presence.find())
        super().__setattr__(name, value)


async def test_a_service_that_ends_is_found_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagoda.application.serving._FIRST_GUEST_SECONDS", 0.01)
    presence = Presence(tmp_path)
    assert presence.claim()
    presence.publish(Notice(url="http://127.0.0.1:1", key="k", pid=1, embedded=True))
    assert presence.find() is not None
    server = Server(presence)
    platform = SimpleNamespace(owns_engines=True, left=asyncio.Event(), leases=0, withdraw=presence.withdraw)
    await _leave_with_guests(cast("Any", platform), cast("Any", server))
    assert server.found == [None]
    assert not Presence(tmp_path).claim(), "its home is its own until it has ended"
    presence.release()
