"""An online experiment through the HTTP API, from start to verdict, its service killed in the middle."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import aiohttp

from pagoda.core.configuration import load_settings
from pagoda.core.settings import Experiments, Settings
from pagoda.model.catalog.opening import open_shelf
from tests.services import fake_model, process, running

UNITS = 120
MODELS = (fake_model("fake-chat"), fake_model("fake-now", text="Fine."), fake_model("fake-new", text="Better."))
WISH = {
    "name": "better",
    "target": {"kind": "model", "name": "fake-chat"},
    "variants": [
        {"name": "now", "share": 0.5, "model": "fake-now"},
        {"name": "new", "share": 0.5, "model": "fake-new"},
    ],
    "metric": {"name": "thumb"},
    "guardrails": [{"name": "latency", "margin": 5.0, "most": 30.0}],
    "baseline": 0.3,
    "effect": 0.3,
    "start": True,
}


async def post(session: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> Any:
    async with session.post(url, json=body, headers=headers) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer | {"request_id": response.headers["X-Request-Id"]}


async def ask_all(url: str, first: int, last: int) -> dict[int, str]:
    """Units ask, and say whether they liked it: three in ten of those with the old model, nine in ten with the new."""
    found: dict[int, str] = {}

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        body = {"model": "fake-chat", "messages": [{"role": "user", "content": f"Question {number}"}]}
        answer = await post(session, f"{url}/v1/chat/completions", body, **{"X-Experiment-Unit": f"u{number}"})
        found[number] = answer["model"]
        liked = number % 10 < (9 if answer["model"] == "fake-new" else 3)
        given = {"completion_id": answer["id"], "thumb": "up" if liked else "down"}
        assert (await post(session, f"{url}/api/v1/feedback", given))["experiments"] == ["better"]

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session, number) for number in range(first, last)))
    return found


async def look(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/experiments/better/verdict") as response:
        return await response.json()


async def test_a_verdict_is_reached_although_the_service_is_killed_in_the_middle(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = load_settings({}, {"PAGODA_HOME": str(home), "HOME": str(tmp_path)}, tmp_path)
    for model in MODELS:
        open_shelf(settings).catalog.add(model)
    flags = ("--set", "defaults.chat=fake-chat", "--set", "reviews.complaints=false")
    with process(home, *flags) as (url, child):
        async with aiohttp.ClientSession() as session:
            await post(session, f"{url}/api/v1/experiments", WISH)
        before = await ask_all(url, 0, UNITS // 2)
        half = await look(url)
        child.kill()
        child.wait()
    with process(home, *flags) as (url, _):
        resumed = await look(url)
        assert resumed["primary"] == half["primary"]
        again = await ask_again(url, range(0, UNITS // 2, 7))
        assert again == {number: before[number] for number in again}
        await ask_all(url, UNITS // 2, UNITS)
        verdict = await look(url)
    assert sum(verdict["units"].values()) == UNITS
    assert sum(arm["outcomes"] for arm in verdict["primary"]["variants"]) == UNITS
    assert verdict["winner"] == "new", verdict["says"]
    [comparison] = verdict["primary"]["comparisons"]
    assert 0 < comparison["low"] < 0.6 < comparison["high"]
    assert [each["says"] for each in verdict["guardrails"][0]["comparisons"]] != ["broken"]
    assert verdict["says"].startswith("new wins")


async def ask_again(url: str, numbers: range) -> dict[int, str]:
    found = {}
    async with aiohttp.ClientSession() as session:
        for number in numbers:
            body = {"model": "fake-chat", "messages": [{"role": "user", "content": "Again"}]}
            headers = {"X-Experiment-Unit": f"u{number}"}
            found[number] = (await post(session, f"{url}/v1/chat/completions", body, **headers))["model"]
    return found


async def test_a_change_holds_in_every_process_of_a_home_and_feedback_may_reach_any(settings: Settings) -> None:
    often = dataclasses.replace(settings, experiments=Experiments(refresh_seconds=0.05, write_seconds=0.05))
    async with running(often, MODELS) as one, running(often, MODELS) as two:
        assert not two.platform.owns_engines
        await post(one.session, f"{one.url}/api/v1/experiments", WISH)
        body = {"model": "fake-chat", "messages": [{"role": "user", "content": "?"}]}
        unit = {"X-Experiment-Unit": "somebody"}
        here = (await post(one.session, f"{one.url}/v1/chat/completions", body, **unit))["model"]
        assert here in ("fake-now", "fake-new")
        async with asyncio.timeout(20):
            while (there := await post(two.session, f"{two.url}/v1/chat/completions", body, **unit))["model"] != here:
                assert there["model"] == "fake-chat"  # not known there yet
        given = {"request_id": there["request_id"], "thumb": "up", "user": "one"}
        assert (await post(one.session, f"{one.url}/api/v1/feedback", given))["experiments"] == ["better"]
        await post(two.session, f"{two.url}/api/v1/experiments/better/stop", {})
        async with asyncio.timeout(20):
            while (await post(one.session, f"{one.url}/v1/chat/completions", body, **unit))["model"] != "fake-chat":
                pass
