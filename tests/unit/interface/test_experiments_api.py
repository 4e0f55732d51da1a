"""``/api/v1/experiments`` over HTTP: made, run, ramped, judged, and refused where they make no sense."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.settings import Experiments, Settings
from pagoda.model.catalog.entry import ModelEntry
from tests.services import Service, fake_model, running
from tests.unit.logic.prompts.sheets import SENTIMENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

VARIANTS = [
    {"name": "short", "share": 0.5, "model": "fake-short"},
    {"name": "long", "share": 0.5, "model": "fake-long"},
]


def models() -> list[ModelEntry]:
    return [fake_model("fake-chat"), fake_model("fake-short", text="No."), fake_model("fake-long", text="No, never.")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    often = dataclasses.replace(module_settings, experiments=Experiments(refresh_seconds=0.05, write_seconds=0.05))
    async with running(often, models()) as started:
        yield started


def wish(name: str, **fields: Any) -> dict[str, Any]:
    target = {"kind": "model", "name": "fake-chat"}
    return {"name": name, "target": target, "variants": VARIANTS, "metric": {"name": "thumb"}} | fields


async def do(service: Service, what: str, body: Any = None) -> tuple[int, Any]:
    return await service.post(f"/api/v1/experiments{what}", {} if body is None else body)


async def look(service: Service, what: str) -> tuple[int, Any]:
    async with service.session.get(f"{service.url}/api/v1/experiments{what}") as response:
        return response.status, await response.json()


async def answered(service: Service, unit: str, **fields: Any) -> str:
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "?"}], **fields}
    status, answer = await service.post("/v1/chat/completions", body, **{"X-Experiment-Unit": unit})
    assert status == 200, answer
    model: str = answer["model"]
    return model


async def test_units_are_shared_out_keep_their_variant_and_get_the_target_again_when_it_stops(service: Service) -> None:
    status, made = await do(service, "", wish("sticky", start=True))
    assert (status, made["state"], made["target"]["name"]) == (200, "running", "fake-chat")
    first = {f"unit-{number}": await answered(service, f"unit-{number}") for number in range(40)}
    assert set(first.values()) == {"fake-short", "fake-long"}
    again = {unit: await answered(service, unit) for unit in first}
    assert again == first
    by_user = await answered_as_user(service, "unit-1")
    assert by_user == first["unit-1"]
    status, found = await look(service, "/sticky/verdict")
    assert status == 200, found
    assert sum(found["units"].values()) == 40
    assert found["winner"] is None
    assert found["says"].startswith("Not decided after 0 outcomes")
    assert (await do(service, "/sticky/stop"))[1]["state"] == "stopped"
    assert await answered(service, "unit-1") == "fake-chat"
    assert (await do(service, f"/{made['id']}/start"))[1]["state"] == "running"
    assert {unit: await answered(service, unit) for unit in first} == first
    await do(service, "/sticky/stop")


async def answered_as_user(service: Service, user: str) -> str:
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "?"}], "user": user}
    model: str = (await service.post("/v1/chat/completions", body))[1]["model"]
    return model


async def test_a_ramp_moves_nobody_and_a_holdout_never_takes_part(service: Service) -> None:
    await do(service, "", wish("ramped", exposure=0.3, holdout=0.2, start=True))
    units = [f"person-{number}" for number in range(60)]
    before = {unit: await answered(service, unit) for unit in units}
    inside = {unit: model for unit, model in before.items() if model != "fake-chat"}
    assert 5 < len(inside) < 35
    status, ramped = await do(service, "/ramped/ramp", {"exposure": 0.8, "shares": {"short": 0.1, "long": 0.9}})
    assert (status, [each["upto"] for each in ramped["slices"]]) == (200, [0.3, 0.8])
    after = {unit: await answered(service, unit) for unit in units}
    assert {unit: after[unit] for unit in inside} == inside
    joined = Counter(model for unit, model in after.items() if unit not in inside)
    assert joined["fake-long"] > joined["fake-short"]
    assert joined["fake-chat"] > 0
    status, found = await look(service, "/ramped/verdict")
    assert found["units"]["holdout"] == joined["fake-chat"]
    status, refused = await do(service, "/ramped/ramp", {"exposure": 0.9})
    assert (status, refused["error"]["param"]) == (400, "exposure")
    status, refused = await do(service, "/ramped/ramp", {"exposure": 0.8, "shares": {"short": 0.5, "long": 0.5}})
    assert (status, refused["error"]["param"]) == (400, "shares")
    await do(service, "/ramped/stop")


async def test_every_route_that_generates_is_under_the_experiment(service: Service) -> None:
    await do(service, "", wish("routes", start=True))
    unit = {"X-Experiment-Unit": "somebody"}
    expected = await answered(service, "somebody")
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"model": "fake-chat", "prompt": "?"}),
        ("/v1/responses", {"model": "fake-chat", "input": "?"}),
        ("/v1/messages", {"model": "fake-chat", "max_tokens": 5, "messages": [{"role": "user", "content": "?"}]}),
    ]
    for path, body in asked:
        status, answer = await service.post(path, body, **unit)
        assert (status, answer["model"]) == (200, expected), path
    await do(service, "/routes/stop")


async def test_guardrails_are_measured_without_any_feedback(service: Service) -> None:
    guards = [{"name": "latency", "margin": 1.0, "most": 10.0}, {"name": "refusal", "margin": 0.5}]
    metric = {"name": "tokens", "direction": "up", "most": 20.0}
    await do(service, "", wish("measured", metric=metric, guardrails=guards, unit="request", start=True))
    for _ in range(60):
        await answered(service, "the same")
    status, found = await look(service, "/measured/verdict")
    assert status == 200, found
    arms = {arm["variant"]: arm for arm in found["primary"]["variants"]}
    assert arms["short"]["outcomes"] + arms["long"]["outcomes"] == 60
    assert arms["short"]["mean"] < arms["long"]["mean"]
    assert [guard["metric"] for guard in found["guardrails"]] == ["latency", "refusal"]
    assert all(0 <= each["mean"] < 10 for each in found["guardrails"][0]["variants"])
    await do(service, "/measured/stop")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"variants": VARIANTS[:1]}, "variants"),
        ({"variants": []}, "variants"),
        ({"variants": [VARIANTS[0], {**VARIANTS[1], "share": 0.4}]}, "variants"),
        ({"variants": [VARIANTS[0], VARIANTS[0]]}, "variants"),
        ({"variants": [VARIANTS[0], {"name": "b", "share": 0.5, "version": 2}]}, "variants"),
        (
            {"variants": [{"name": "a", "share": 0.5, "version": 1}, {"name": "b", "share": 0.5, "version": 2}]},
            "variants",
        ),
        ({"metric": {"name": "latency"}}, "metric"),
        ({"guardrails": [{"name": "thumb", "margin": 0.1}]}, "guardrails"),
        ({"guardrails": [{"name": "cost", "margin": 2.0, "most": 1.5}]}, "guardrails"),
        ({"allocation": "adaptive"}, "allocation"),
        ({"holdout": 0.5, "exposure": 0.6}, "exposure"),
        ({"effect": 2.0}, "effect"),
        ({"name": "two words"}, "name"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_an_experiment_that_makes_no_sense_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    status, answer = await do(service, "", wish("wrong") | fields)
    assert status == 400, answer
    assert param in answer["error"]["param"]


async def test_unknown_models_experiments_and_wrong_states_are_told_apart(service: Service) -> None:
    assert (await do(service, "", wish("lost", target={"kind": "model", "name": "nothing"})))[0] == 404
    assert (await look(service, "/nothing"))[0] == 404
    assert (await do(service, "", wish("one")))[0] == 200
    assert (await do(service, "", wish("one")))[0] == 409
    assert (await do(service, "/one/stop"))[0] == 409
    assert (await do(service, "/one/start"))[0] == 200
    await do(service, "", wish("two"))
    status, answer = await do(service, "/two/start")
    assert (status, "'one' runs" in answer["error"]["message"]) == (409, True)
    await do(service, "/one/stop")
    names = [each["name"] for each in (await look(service, ""))[1]["data"]]
    assert names[:2] == ["two", "one"]


async def test_a_label_means_each_units_version_without_a_change_in_the_calling_code(service: Service) -> None:
    versions = [SENTIMENT, SENTIMENT.replace("A joy", "Pure joy")]
    first, second = [(await service.post("/api/v1/prompts", {"source": each}))[1]["version"] for each in versions]
    await service.post("/api/v1/prompts/sentiment/labels/production", {"version": first})
    variants = [{"name": f"v{version}", "share": 0.5, "version": version} for version in (first, second)]
    fields = {"target": {"kind": "prompt", "name": "sentiment"}, "variants": variants}
    lost = {"variants": [variants[0], {**variants[1], "version": 99}]}
    assert (await do(service, "", wish("label") | fields | lost))[0] == 404
    status, made = await do(service, "", wish("label") | fields | {"start": True})
    assert (status, made["target"]["label"]) == (200, "production"), made
    prompt = {"name": "sentiment", "variables": {"text": "Loved it."}}
    seen = [await version_used(service, prompt, f"reader-{number}") for number in range(30)]
    assert set(seen) == {f"sentiment@{first}", f"sentiment@{second}"}
    assert [await version_used(service, prompt, f"reader-{number}") for number in range(30)] == seen
    fixed = {**prompt, "version": first}
    assert {await version_used(service, fixed, f"reader-{number}") for number in range(30)} == {f"sentiment@{first}"}
    assert sum((await look(service, "/label/verdict"))[1]["units"].values()) == 30
    await do(service, "/label/stop")
    assert await version_used(service, prompt, "reader-1") == f"sentiment@{first}"


async def version_used(service: Service, prompt: dict[str, Any], unit: str) -> str:
    url, headers = service.url + "/v1/chat/completions", {"X-Experiment-Unit": unit}
    async with service.session.post(url, json={"prompt": prompt}, headers=headers) as response:
        assert response.status == 200, await response.text()
        return response.headers["X-Pagoda-Prompt"]


async def test_a_plan_tells_both_samples(service: Service) -> None:
    status, found = await do(service, "/plan", {"baseline": 0.5, "effect": 0.1})
    assert (status, found["fixed"]) == (200, 770)
    assert found["typical"] < found["enough"] < 3 * found["fixed"]
    assert (await do(service, "/plan", {"baseline": 0.95, "effect": 0.1}))[1]["error"]["param"] == "effect"
