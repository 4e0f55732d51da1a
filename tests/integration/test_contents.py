"""Prompts and answers: kept only when asked for, masked, for a time, and deleted by key or user."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.settings import Settings
from pagoda.core.storage.store import open_store
from pagoda.service.contents.masking import MASK, masked
from pagoda.service.contents.shelf import Whose, add, find, prune
from tests.services import Service, fake_model, running

FAKE = fake_model(rules=[{"contains": "fail", "fault": "status", "status": 500}])


def keeping(settings: Settings, content: str) -> Settings:
    """Settings that keep what is said."""
    return dataclasses.replace(settings, log=dataclasses.replace(settings.log, content=content))


async def kept(service: Service, **whose: str) -> list[dict[str, Any]]:
    """What the API shows."""
    async with service.session.get(service.url + "/api/v1/logs", params=whose) as response:
        assert response.status == 200, await response.text()
        data: list[dict[str, Any]] = (await response.json())["data"]
    return data


async def test_nothing_is_kept_unless_it_is_asked_for(settings: Settings) -> None:
    async with running(settings, [FAKE]) as service:
        assert (await service.chat("hello"))[0] == 200
        assert await kept(service) == []


async def test_errors_alone_are_kept_when_that_is_asked_for(settings: Settings) -> None:
    async with running(keeping(settings, "errors"), [FAKE]) as service:
        assert (await service.chat("hello"))[0] == 200
        assert (await service.chat("fail now"))[0] >= 500
        (row,) = await kept(service)
        assert "fail now" in row["prompt"]
        assert row["status"] not in ("ok", "cancelled")


async def test_what_is_said_is_shown_masked_and_deleted_by_user_and_key(settings: Settings) -> None:
    async with running(keeping(settings, "all"), [FAKE]) as service:
        for user in ("ada", "bob"):
            messages = [{"role": "user", "content": f"my password: hunter22 says {user}"}]
            body = {"messages": messages, "user": user, "temperature": 0}
            assert (await service.post("/v1/chat/completions", body))[0] == 200
        await service.stream("/v1/completions", {"model": "fake-chat", "prompt": "streamed words", "user": "ada"})
        rows = await kept(service, user="ada")
        assert [row["route"] for row in rows] == ["/v1/completions", "/v1/chat/completions"]
        assert "streamed words" in rows[0]["prompt"]
        assert rows[0]["answer"]
        assert MASK in rows[1]["prompt"]
        assert "hunter22" not in json.dumps(rows)
        async with service.session.delete(service.url + "/api/v1/logs") as response:
            assert response.status == 400
        async with service.session.delete(service.url + "/api/v1/logs", params={"user": "ada"}) as response:
            assert await response.json() == {"deleted": 2}
        assert [row["user"] for row in await kept(service)] == ["bob"]
        home = service.platform.settings.home
    shown = await asyncio.to_thread(command, home, "show", "--key", "local", "--json")
    assert [row["user"] for row in shown] == ["bob"]
    assert await asyncio.to_thread(command, home, "delete", "--key", "local", "--json") == {"deleted": 1}
    assert await asyncio.to_thread(command, home, "show", "--json") == []


def command(home: Path, *words: str) -> Any:
    """What ``pagoda logs`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pagoda", "logs", *words],
        env={**os.environ, "PAGODA_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_what_is_too_old_goes(settings: Settings) -> None:
    row = dict.fromkeys(("request_id", "key_id", "team", "model", "route", "status", "prompt", "answer"), "x")
    now = datetime.now(UTC)
    async with open_store(settings) as store:
        await add(store, [{**row, "user": None, "at": now - timedelta(days=age)} for age in (1, 6, 8, 40)])
        assert await prune(store, 7) == 2
        assert len(await find(store, Whose(), 10)) == 2


async def test_what_is_too_old_goes_where_nothing_is_taken_down_any_more(settings: Settings) -> None:
    row = dict.fromkeys(("request_id", "key_id", "team", "model", "route", "status", "prompt", "answer"), "x")
    async with open_store(settings) as store:
        await add(store, [{**row, "user": None, "at": datetime.now(UTC) - timedelta(days=40)}])
    async with running(keeping(settings, "off"), [fake_model()]) as service:
        store = await service.platform.records()
        async with asyncio.timeout(30):
            while await find(store, Whose(), 10):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "secret",
    [
        "pk-0123456789abcdef",
        "sk-proj-abcdef0123456789",
        "ghp_0123456789abcdefABCD",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
@given(before=st.text(" abc.\n", max_size=8), after=st.text(" .\n", max_size=8))
def test_secrets_are_masked_wherever_they_stand(secret: str, before: str, after: str) -> None:
    shown = masked(f"{before} {secret} {after}")
    assert secret not in shown
    assert MASK in shown


@pytest.mark.parametrize("text", ["Authorization: Bearer abcdef123456", '{"password": "hunter22"}', "api_key=abcdef99"])
def test_named_secrets_are_masked(text: str) -> None:
    shown = masked(text)
    assert MASK in shown
    assert not any(secret in shown for secret in ("abcdef123456", "hunter22", "abcdef99"))
