"""Agents among others: sub-agents that they call, people who allow calls in the queue, and what they may spend."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pagoda.application.agenting import AgentDesk
from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.core.settings import Prices, Settings, Tools
from pagoda.logic.tools.function import tool_from
from tests.services import Service, eventually, fake_model, running

EFFECTS: list[str] = []
HANGING: list[str] = []


async def send(to: str) -> str:
    """Send something."""
    EFFECTS.append(to)
    return "Sent."


async def hang() -> str:
    """Take very long."""
    HANGING.append("begun")
    await asyncio.sleep(60)
    return "late"


asked = tool_from(send, name="asked", needs_approval=True)
slow = tool_from(hang, name="slow", read_only=True)

RULES = [
    {"contains": "</data>", "text": "It is 1582."},
    {"contains": "Use these results", "text": "Not finished."},
    {"contains": "work out", "calls": [{"name": "calculator", "arguments": '{"expression": "37*41+65"}'}]},
    {"contains": "be slow", "calls": [{"name": "slow", "arguments": "{}"}]},
    {"contains": "ask the clerk", "calls": [{"name": "clerk", "arguments": '{"task": "work out 37*41+65"}'}]},
    {"contains": "ask for the slow one", "calls": [{"name": "clerk", "arguments": '{"task": "be slow"}'}]},
    {"contains": "mail", "calls": [{"name": "asked", "arguments": '{"to": "ada"}'}]},
]
MODEL = dataclasses.replace(fake_model(rules=RULES), tools="native")
CLERK = "description: Works out sums.\ntools: [calculator, slow]\nturns: 3\n"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def with_clerk(settings: Settings, clerk: str = CLERK) -> Settings:
    path = settings.home.parent / "clerk.yaml"
    path.write_text(clerk, encoding="utf-8")
    cheap = path.with_name("cheap.yaml")
    cheap.write_text("description: Costs nothing.\ntools: [calculator]\nmodel: free\n", encoding="utf-8")
    names = tuple(f"{__name__}:{name}" for name in ("asked", "slow"))
    return dataclasses.replace(
        settings,
        tools=Tools(functions=names, agents={"clerk": str(path), "cheap": str(cheap)}),
        prices=Prices(currency="EUR", models={"fake-chat": "1000000/1000000"}),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    async with running(with_clerk(module_settings), (MODEL, fake_model("free", rules=RULES))) as running_service:
        yield running_service


@pytest.fixture(autouse=True)
def _fresh() -> None:
    EFFECTS.clear()
    HANGING.clear()


async def run(service: Service, task: str, *tools: str, **fields: Any) -> dict[str, Any]:
    body = {"task": task, "tools": list(tools), "stream": False, **fields}
    status, told = await service.post("/api/v1/agents/run", body)
    assert status == 200, told
    return dict(told)


async def get(service: Service, path: str) -> Any:
    async with service.session.get(service.url + path) as response:
        return await response.json()


async def test_a_sub_agent_is_a_tool_whose_run_can_be_shown(service: Service) -> None:
    told = await run(service, "ask the clerk", "clerk")
    assert (told["status"], told["answer"]) == ("done", "It is 1582.")
    events = (await get(service, f"/api/v1/agents/runs/{told['id']}"))["events"]
    result = next(event["result"] for event in events if event["type"] == "call.done")
    assert result == {"answer": "It is 1582.", "run": f"{told['id']}.1"}
    below = await get(service, f"/api/v1/agents/runs/{result['run']}")
    assert (below["status"], below["task"], below["tools"]) == ("done", "work out 37*41+65", ["calculator", "slow"])
    assert "call.done" in [event["type"] for event in below["events"]]


async def test_what_sub_agents_spend_counts(service: Service) -> None:
    free = await run(service, "ask the clerk", "clerk")
    events = (await get(service, f"/api/v1/agents/runs/{free['id']}"))["events"]
    most = next(event["tokens"] for event in events if event["type"] == "turn.done") + 1  # more than its own first turn
    told = await run(service, "ask the clerk", "clerk", limits={"tokens": most})
    assert told["limited"] == f"{most} tokens"


async def test_cancelling_cancels_sub_agents_too(service: Service) -> None:
    task = asyncio.create_task(run(service, "ask for the slow one", "clerk"))
    await eventually(lambda: HANGING == ["begun"])
    runs = {each["id"]: each for each in (await get(service, "/api/v1/agents/runs"))["data"][:2]}
    above = next(each for each in runs if "." not in each)
    await service.post(f"/api/v1/agents/runs/{above}/cancel", {})
    assert (await task)["status"] == "cancelled"
    assert (await get(service, f"/api/v1/agents/runs/{above}.1"))["status"] == "cancelled"


async def test_interrupted_with_its_sub_agent_a_run_goes_on_with_the_same_one(service: Service) -> None:
    agents = await service.platform.desk.agents()
    task = asyncio.create_task(run(service, "ask for the slow one", "clerk"))
    await eventually(lambda: HANGING == ["begun"])
    above = (await get(service, "/api/v1/agents/runs"))["data"]
    run_id = next(each["id"] for each in above if "." not in each["id"])
    agents._at_work[run_id].task.cancel()  # as when the service stops
    assert (await task)["status"] == "interrupted"
    assert (await get(service, f"/api/v1/agents/runs/{run_id}.1"))["status"] == "interrupted"
    again = asyncio.create_task(service.post(f"/api/v1/agents/runs/{run_id}/resume?stream=false", {}))
    await eventually(lambda: HANGING == ["begun", "begun"])
    assert (await get(service, f"/api/v1/agents/runs/{run_id}.1"))["status"] == "running"
    await service.post(f"/api/v1/agents/runs/{run_id}/cancel", {})
    await again


@pytest.mark.parametrize(
    ("clerk", "kind", "said"),
    [
        ("description: x\ntools: [asked]\n", InvalidRequest, "its tool asked needs approval"),
        ("description: x\ntools: [clerk]\n", InvalidRequest, "its tool clerk is a sub-agent itself"),
        ("description: x\ntools: [nothing]\n", NotFound, "There is no tool 'nothing'"),
        ("description: x\ntools: [calculator]\nturn: 3\n", InvalidRequest, "tools.agents.clerk: turn in"),
        ("description: [\n", InvalidRequest, "is not YAML"),
    ],
)
async def test_a_sub_agent_that_cannot_be_is_refused(
    service: Service, tmp_path: Path, clerk: str, kind: type[Exception], said: str
) -> None:
    platform = service.platform
    settings = with_clerk(dataclasses.replace(platform.settings, home=tmp_path / "home"), clerk)
    desk = AgentDesk(settings, platform.retrieval, platform.prompts, platform.telemetry)
    with pytest.raises(kind, match=said):
        await desk.agents()


async def test_a_call_that_waits_is_in_the_review_queue_and_is_allowed_there(service: Service) -> None:
    told = await run(service, "mail ada", "asked")
    assert (told["status"], EFFECTS) == ("waiting", [])
    (review,) = (await get(service, "/api/v1/reviews?reason=approval&state=waiting"))["data"]
    assert review["reasons"]["approval"] == {"run": told["id"], "step": 1, "tool": "asked", "arguments": {"to": "ada"}}
    path = f"/api/v1/reviews/{review['id']}/decide"
    status, refused = await service.post(path, {"reviewer": "eve", "decision": "edit", "edited": "{}"})
    assert (status, refused["error"]["param"]) == (400, "decision")
    status, decided = await service.post(path, {"reviewer": "eve", "decision": "approve"})
    assert (status, decided["state"]) == (200, "approved")
    await eventually(lambda: EFFECTS == ["ada"])
    events = (await get(service, f"/api/v1/agents/runs/{told['id']}"))["events"]
    assert next(event["by"] for event in events if event["type"] == "call.approved") == "eve"


async def test_a_call_that_is_rejected_in_the_queue_is_not_made(service: Service) -> None:
    told = await run(service, "mail ada", "asked")
    (review,) = (await get(service, "/api/v1/reviews?reason=approval&state=waiting"))["data"]
    ruling = {"reviewer": "eve", "decision": "reject", "reason": "not now"}
    await service.post(f"/api/v1/reviews/{review['id']}/decide", ruling)
    path = f"/api/v1/agents/runs/{told['id']}"
    shown = await get(service, path)
    assert next(event["reason"] for event in shown["events"] if event["type"] == "call.refused") == "not now"
    assert EFFECTS == []


async def test_a_call_that_is_decided_elsewhere_leaves_the_queue(service: Service) -> None:
    told = await run(service, "mail ada", "asked")
    await service.post(f"/api/v1/agents/runs/{told['id']}/decision", {"approve": False, "stream": False})
    found = (await get(service, "/api/v1/reviews?reason=approval"))["data"]
    mine = next(each for each in found if each["reasons"]["approval"]["run"] == told["id"])
    assert (mine["state"], mine["judgements"][0]["reviewer"]) == ("rejected", "local")


async def test_nobody_can_put_an_approval_into_the_queue_by_hand(service: Service) -> None:
    body = {"request_id": "agent-x:1", "reason": "approval", "answer": "harmless"}
    status, _ = await service.post("/api/v1/reviews", body)
    assert status == 400


async def test_a_run_stops_at_what_it_may_cost(service: Service) -> None:
    told = await run(service, "work out", "calculator", limits={"money": 0.5})
    assert told["limited"] == "0.50 EUR"
    assert "0.50 EUR" in told["answer"]
    rich = await run(service, "work out", "calculator", limits={"money": 1000})
    assert (rich["limited"], rich["limits"]["money"]) == (None, 1000)
    body = {"task": "work out", "tools": ["calculator"], "model": "free", "limits": {"money": 1}}
    status, problem = await service.post("/api/v1/agents/run", body)
    assert (status, problem["error"]["param"]) == (400, "limits")
    below = {"task": "ask the clerk", "tools": ["cheap"], "limits": {"money": 1}}
    status, problem = await service.post("/api/v1/agents/run", below)
    assert (status, "free has no price" in problem["error"]["message"]) == (400, True)
