"""Teams and what is learnt from answers: experiments, feedback and reviews of one do not exist for another."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.setting_values import Secret
from pagoda.core.settings import Experiments, Keys, Limits, Settings
from tests.services import Service, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "an-admin-key-for-tests"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    chosen = dataclasses.replace(
        module_settings,
        keys=Keys(admin_key=Secret(ADMIN), refresh_seconds=0.1),
        experiments=Experiments(refresh_seconds=0.05, write_seconds=0.05),
        limits=Limits(write_seconds=0.05),
    )
    models = [fake_model("fake-chat"), fake_model("fake-a"), fake_model("fake-b")]
    async with running(chosen, models) as started:
        yield started


async def key_of(service: Service, team: str, **fields: Any) -> dict[str, str]:
    body = {"name": team, "team": team, "scopes": ["inference", "operate"], **fields}
    status, made = await service.post("/api/v1/keys", body, Authorization=f"Bearer {ADMIN}")
    assert status == 200, made
    return {"Authorization": f"Bearer {made['secret']}"}


async def get(service: Service, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    async with service.session.get(service.url + path, headers=headers) as response:
        return response.status, await response.json()


async def test_what_one_team_learns_does_not_exist_for_another(service: Service) -> None:
    blue, red = await key_of(service, "blue"), await key_of(service, "red")
    variants = [{"name": name, "share": 0.5, "model": f"fake-{name}"} for name in "ab"]
    target = {"kind": "model", "name": "fake-chat"}
    wish = {"name": "one", "target": target, "variants": variants, "metric": {"name": "thumb"}, "start": True}
    assert (await service.post("/api/v1/experiments", wish, **blue))[0] == 200
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "?"}]}
    ours, theirs = [(await service.post("/v1/chat/completions", body, **who))[1] for who in (blue, red)]
    assert ours["model"] in ("fake-a", "fake-b")
    assert theirs["model"] == "fake-chat"
    say = {"completion_id": ours["id"], "thumb": "down"}
    assert (await service.post("/api/v1/feedback", say, **red))[1]["error"]["code"] == "request_not_found"
    status, given = await service.post("/api/v1/feedback", say, **blue)
    assert (status, given["experiments"]) == (200, ["one"])
    for path in ("/api/v1/experiments/one", "/api/v1/experiments/one/verdict", f"/api/v1/reviews/{given['review']}"):
        assert [(await get(service, path, who))[0] for who in (blue, red)] == [200, 404], path
    for path in ("/api/v1/experiments", "/api/v1/feedback", "/api/v1/reviews"):
        assert [len((await get(service, path, who))[1]["data"]) for who in (blue, red)] == [1, 0], path
    claim = await service.post("/api/v1/reviews/claim", {"reviewer": "x"}, **red)
    assert claim == (200, {"review": None})
    assert (await service.post("/api/v1/experiments/one/stop", {}, **red))[0] == 404


async def test_a_key_that_may_not_ask_a_variants_model_gets_the_targets_own(service: Service) -> None:
    narrow = await key_of(service, "narrow", models=["fake-chat"])
    variants = [{"name": name, "share": 0.5, "model": f"fake-{name}"} for name in "ab"]
    target = {"kind": "model", "name": "fake-chat"}
    wish = {"name": "two", "target": target, "variants": variants, "metric": {"name": "thumb"}, "start": True}
    assert (await service.post("/api/v1/experiments", wish, **narrow))[0] == 404
    wide = await key_of(service, "wide")
    assert (await service.post("/api/v1/experiments", wish, **wide))[0] == 200
    body = {"name": "wide-narrow", "team": "wide", "models": ["fake-chat"]}
    _, made = await service.post("/api/v1/keys", body, Authorization=f"Bearer {ADMIN}")
    asked = {"model": "fake-chat", "messages": [{"role": "user", "content": "?"}]}
    held = {"Authorization": f"Bearer {made['secret']}"}
    status, answer = await service.post("/v1/chat/completions", asked, **held)
    assert (status, answer["model"]) == (200, "fake-chat")
    assert (await get(service, "/api/v1/experiments/two/verdict", wide))[1]["units"] == {}
