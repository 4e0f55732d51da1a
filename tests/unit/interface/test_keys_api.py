"""``/api/v1/keys`` and the audit log over HTTP."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.setting_values import Secret
from pagoda.core.settings import Keys, Settings
from tests.services import Service, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = {"Authorization": "Bearer an-admin-key-for-tests"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    keys = Keys(admin_key=Secret("an-admin-key-for-tests"), refresh_seconds=0.1)
    async with running(dataclasses.replace(module_settings, keys=keys), [fake_model()]) as started:
        yield started


async def call(service: Service, method: str, path: str, secret: str = "", body: Any = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {secret}"} if secret else ADMIN
    async with service.session.request(method, service.url + path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_a_key_is_made_shown_rotated_and_ended(service: Service) -> None:
    wanted = {"name": "app", "team": "blue", "expires": "2d", "limits": {"budget": 0.1, "period": "month"}}
    status, made = await call(service, "POST", "/api/v1/keys", body=wanted)
    assert status == 200
    assert made["limits"] == {
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "concurrent": None,
        "budget_tokens": None,
        "budget": 0.1,
        "period": "month",
    }
    assert (await call(service, "GET", "/v1/models", made["secret"]))[0] == 200
    assert (await call(service, "POST", "/api/v1/keys", body=wanted))[0] == 409
    for reference in (made["id"], "app"):
        status, shown = await call(service, "GET", f"/api/v1/keys/{reference}")
        assert (status, shown["id"], "secret" in shown) == (200, made["id"], False)
    assert made["secret"] not in str(await call(service, "GET", "/api/v1/keys"))
    _, rotated = await call(service, "POST", "/api/v1/keys/app/rotate")
    assert (await call(service, "GET", "/v1/models", made["secret"]))[0] == 401
    _, again = await call(service, "POST", "/api/v1/keys/app/rotate", body={"grace_seconds": 60})
    assert (await call(service, "GET", "/v1/models", rotated["secret"]))[0] == 200
    status, ended = await call(service, "DELETE", "/api/v1/keys/app")
    assert (status, ended["revoked"] is not None) == (200, True)
    assert (await call(service, "GET", "/v1/models", again["secret"]))[0] == 401
    assert (await call(service, "POST", f"/api/v1/keys/{made['id']}/rotate"))[0] == 409
    assert (await call(service, "GET", "/api/v1/keys/app"))[0] == 404
    assert made["id"] in str(await call(service, "GET", "/api/v1/keys?revoked=true"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x", "scopes": ["everything"]}, "scopes"),
        ({"name": "x", "team": "two words"}, "team"),
        ({"name": "x", "expires": "soon"}, "expires"),
        ({"name": "x", "expires": "2001-01-01"}, "expires"),
        ({"name": "x", "limits": {"rpm": 1}}, "rpm"),
        ({"name": "x", "limits": {"concurrent": -1}}, "concurrent"),
        ({"name": "a\u0000b"}, "name"),
    ],
)
async def test_a_wrong_wish_is_refused_by_name(service: Service, body: dict[str, Any], param: str) -> None:
    status, answer = await call(service, "POST", "/api/v1/keys", body=body)
    assert status == 400
    assert param in answer["error"]["param"]


async def test_models_are_kept_by_id_and_must_exist(service: Service) -> None:
    status, made = await call(service, "POST", "/api/v1/keys", body={"name": "narrow", "models": ["fake-chat"]})
    assert (status, made["models"]) == (200, ["fake-chat"])
    assert (await call(service, "POST", "/api/v1/keys", body={"name": "y", "models": ["nothing"]}))[0] == 404


async def test_the_last_admin_key_cannot_be_revoked_over_http(service: Service) -> None:
    _, made = await call(service, "POST", "/api/v1/keys", body={"name": "root", "scopes": ["admin"]})
    status, answer = await call(service, "DELETE", "/api/v1/keys/root")
    assert (status, "last admin key" in answer["error"]["message"]) == (409, True)
    _, other = await call(service, "POST", "/api/v1/keys", made["secret"], {"name": "root2", "scopes": ["admin"]})
    assert (await call(service, "DELETE", "/api/v1/keys/root", other["secret"]))[0] == 200


async def test_the_audit_log_tells_who_did_what_and_what_was_refused(service: Service) -> None:
    _, operator = await call(service, "POST", "/api/v1/keys", body={"name": "operator", "scopes": ["operate"]})
    _, plain = await call(service, "POST", "/api/v1/keys", body={"name": "plain"})
    found = await call(service, "POST", "/api/v1/models/fake-chat/load", operator["secret"])
    assert found[0] == 200, found
    assert (await call(service, "POST", "/api/v1/models/nothing/load", operator["secret"]))[0] == 404
    for _ in range(3):
        assert (await call(service, "DELETE", "/api/v1/cache", plain["secret"]))[0] == 403
    end = time.monotonic() + 20
    lines: list[dict[str, Any]] = []
    while not any(line["who"] == plain["id"] for line in lines):  # written in the background
        assert time.monotonic() < end
        lines = (await call(service, "GET", "/api/v1/audit?limit=1000"))[1]["data"]
    told = [(line["who"], line["action"], line["subject"], line["outcome"]) for line in lines]
    load = "POST /api/v1/models/{model_id:path}/load"
    assert (operator["id"], load, "fake-chat", "done") in told
    assert (operator["id"], load, "nothing", "model_not_found") in told
    refused = [line for line in told if line[0] == plain["id"]]
    assert (plain["id"], "DELETE /api/v1/cache", "", "refused") in refused
    assert ("environment", "keys.create", plain["id"], "done") in told
    assert {line["address"] for line in lines} == {"127.0.0.1"}
    assert plain["secret"] not in str(lines)
    _, page = await call(service, "GET", f"/api/v1/audit?limit=1&before={lines[0]['id']}")
    assert (page["data"], page["has_more"]) == ([lines[1]], True)
