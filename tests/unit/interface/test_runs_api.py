"""Runs over HTTP: listed, shown, followed to the end, followed again from the middle, cancelled."""

from __future__ import annotations

import json
from pathlib import Path

from pagoda.core.runs import RunContext, RunRegistry, Runs, execute
from pagoda.core.settings import Settings
from tests.services import Service, running


def work(context: RunContext) -> dict[str, int]:
    """Three steps."""
    for step in range(3):
        context.progress("work", step + 1, 3)
        context.metric(step, loss=1.0 / (step + 1))
    return {"steps": 3}


REGISTRY = RunRegistry({"steps": work})


async def follow(service: Service, run_id: str, **headers: str) -> list[dict[str, object]]:
    async with service.session.get(f"{service.url}/api/v1/runs/{run_id}/events", headers=headers) as response:
        assert response.status == 200
        text = await response.text()
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


async def test_a_run_is_listed_shown_followed_and_cannot_be_cancelled_once_done(
    settings: Settings, tmp_path: Path
) -> None:
    runs = Runs(settings, REGISTRY)
    run = runs.create("steps", {"n": 3}, seed=1)
    async with running(settings, []) as service:
        async with service.session.get(service.url + "/api/v1/runs") as response:
            listed = (await response.json())["data"]
        assert [(each["id"], each["status"]) for each in listed] == [(run.id, "created")]
        execute(run.id, REGISTRY, settings)
        events = await follow(service, run.id)
        assert events[-1]["type"] == "end"
        assert [event["data"]["values"] for event in events if event["type"] == "metric"] == [  # type: ignore[index]
            {"loss": 1.0},
            {"loss": 0.5},
            {"loss": 1.0 / 3},
        ]
        middle = events[len(events) // 2]
        again = await follow(service, run.id, **{"Last-Event-ID": str(middle["id"])})
        assert [event["id"] for event in again if event["type"] == "metric"] == [
            event["id"] for event in events[len(events) // 2 + 1 :] if event["type"] == "metric"
        ]
        async with service.session.get(f"{service.url}/api/v1/runs/{run.id}") as response:
            shown = await response.json()
        assert (shown["status"], shown["result"]) == ("done", {"steps": 3})
        status, answer = await service.post(f"/api/v1/runs/{run.id}/cancel", {})
        assert (status, answer["error"]["code"]) == (409, "conflict")
        status, answer = await service.post("/api/v1/runs/nothing/cancel", {})
        assert status == 404


async def test_a_run_that_waits_can_be_cancelled(settings: Settings) -> None:
    run = Runs(settings, REGISTRY).create("steps", {}, seed=1)
    async with running(settings, []) as service:
        status, answer = await service.post(f"/api/v1/runs/{run.id}/cancel", {})
        assert (status, answer["status"]) == (200, "cancelled")
