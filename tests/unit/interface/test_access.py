"""Who may come in: no route is open by accident, keys open what their scopes say, and guessing is slowed down."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from pagoda.core.errors import InvalidRequest
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Keys, Settings
from pagoda.interface.access import need_of, networks, secret_in
from pagoda.interface.app import build_app
from pagoda.interface.context import Route
from pagoda.service.keys.book import LOCAL
from pagoda.service.keys.draft import Draft
from tests.services import Service, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "an-admin-key-for-tests"
MODELS = (fake_model(), fake_model("fake-other"), fake_model("fake-embed", task="embedding"))
PUBLIC = {"/", "/knowledge", "/docs", "/favicon.ico", "/static/{name:path}", "/openapi.json", "/health", "/ready"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    """A service that needs keys."""
    wanted = dataclasses.replace(module_settings, keys=Keys(admin_key=Secret(ADMIN)))
    async with running(wanted, MODELS) as started:
        yield started


async def issue(service: Service, **fields: Any) -> str:
    """The secret of a new key."""
    issued = await service.platform.book.create(Draft(**fields), LOCAL)
    return issued.secret


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def call(service: Service, method: str, path: str, **headers: str) -> tuple[int, Any, Any]:
    async with service.session.request(method, service.url + path, headers=headers) as response:
        return response.status, await response.read(), response.headers


def routes(router: FastAPI | APIRouter) -> Iterator[tuple[str, str, BaseRoute]]:
    """Every method and path of an application, those of the routers in it too."""
    for route in cast("list[Any]", router.routes):
        if hasattr(route, "original_router"):
            assert not route.include_context.prefix, "a path is put together otherwise than this test knows"
            yield from routes(route.original_router)
            continue
        assert hasattr(route, "methods"), f"{route} is neither a route nor checked here; extend this test"
        for method in sorted(route.methods - {"HEAD"}):
            yield method, route.path, route


async def test_every_route_declares_who_may_call_it_and_only_the_listed_ones_are_public(service: Service) -> None:
    app = build_app(service.platform, _nothing, _nothing)
    found = list(routes(app))
    assert len(found) > 40
    for method, path, route in found:
        need = need_of(cast("Any", route).endpoint)
        assert need is not None, f"{method} {path} does not say who may call it"
        assert (need == "public") == (path in PUBLIC), f"{method} {path} is {need}"
        assert need == "public" or isinstance(route, Route), f"{method} {path} declares {need} but nobody checks it"
    assert {path for _, path, _ in found} >= PUBLIC


async def _nothing() -> None:
    pass


async def test_a_route_without_a_declaration_cannot_be_made() -> None:
    router = APIRouter(route_class=Route)
    with pytest.raises(RuntimeError, match="does not say who may call it"):

        @router.get("/forgotten")
        def forgotten() -> None:
            """Says nothing."""


async def test_without_a_key_every_route_but_the_public_ones_answers_401(service: Service) -> None:
    app = build_app(service.platform, _nothing, _nothing)
    for method, path, route in routes(app):
        need = need_of(cast("Any", route).endpoint)
        status, _, headers = await call(service, method, path)
        if need == "public":
            assert status in (200, 404), path  # 404: the template of a path names no file
        elif need == "internal":
            assert status == 404, path
        else:
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), f"{method} {path}"


async def test_a_key_opens_exactly_what_its_scopes_say(service: Service) -> None:
    app = build_app(service.platform, _nothing, _nothing)
    for scope in ("inference", "monitor", "operate", "admin"):
        secret = await issue(service, name=f"only-{scope}", scopes=frozenset({scope}))
        for method, path, route in routes(app):
            need = need_of(cast("Any", route).endpoint)
            if need in ("public", "internal") or path.endswith("events"):
                continue
            status, body, _ = await call(service, method, path.replace("{key}", "no-such-key"), **bearer(secret))
            if need == scope or scope == "admin":
                assert status not in (401, 403), f"{scope} at {method} {path}: {body!r}"
            else:
                assert status == 403, f"{scope} at {method} {path}"
                assert need in body.decode()
    service.platform.gate.asked.clear()  # those who might end the service did


async def test_both_headers_open_and_say_nothing_of_the_secret(service: Service) -> None:
    secret = await issue(service, name="headers")
    for headers in (bearer(secret), {"Authorization": f"bearer  {secret} "}, {"x-api-key": secret}):
        assert (await call(service, "GET", "/v1/models", **headers))[0] == 200
    for headers in ({"Authorization": f"Basic {secret}"}, {"Authorization": secret}, {"Authorization": "Bearer "}):
        assert (await call(service, "GET", "/v1/models", **headers))[0] == 401
    status, body, _ = await call(service, "GET", "/v1/models", **bearer("pk-" + "x" * 43))
    assert status == 401
    assert b"xxx" not in body


async def test_anthropics_clients_get_its_form_of_401(service: Service) -> None:
    status, body, _ = await call(service, "POST", "/v1/messages")
    assert status == 401
    assert b'"type":"authentication_error"' in body
    assert body.startswith(b'{"type":"error"')


async def test_health_tells_strangers_only_that_it_lives(service: Service) -> None:
    assert (await call(service, "GET", "/health"))[1] == b'{"status":"ok"}'
    assert (await call(service, "GET", "/health", **bearer("wrong")))[1] == b'{"status":"ok"}'
    assert b"models_loaded" in (await call(service, "GET", "/health", **bearer(ADMIN)))[1]
    assert (await call(service, "GET", "/ready"))[1] == b'{"status":"ready"}'


async def test_with_keys_a_foreign_name_or_proxy_is_no_reason_to_refuse(service: Service) -> None:
    for headers in ({"Host": "llm.example"}, {"X-Forwarded-For": "10.0.0.1"}, {"Origin": "http://evil.example"}):
        assert (await call(service, "GET", "/v1/models", **headers))[0] == 401
        status, _, told = await call(service, "GET", "/v1/models", **headers, **bearer(ADMIN))
        assert status == 200
        assert "Access-Control-Allow-Origin" not in told, "a page elsewhere must not read it"


async def test_a_key_for_some_models_hears_of_no_others(service: Service) -> None:
    secret = await issue(service, name="narrow", models=("fake-chat",))
    headers = bearer(secret)
    _, body, _ = await call(service, "GET", "/v1/models", **headers)
    assert b"fake-chat" in body
    assert b"fake-other" not in body
    answers = []
    for name in ("fake-other", "fake-nothng"):
        asked = {"model": name, "messages": [{"role": "user", "content": "x"}]}
        status, answer = await service.post("/v1/chat/completions", asked, **headers)
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        answers.append(answer["error"]["message"].replace(name, "NAME"))
        assert (await service.post("/v1/embeddings", {"model": name, "input": "x"}, **headers))[0] == 404
        assert (await service.post("/tokenize", {"model": name, "prompt": "x"}, **headers))[0] == 404
        assert (await service.post("/v1/rerank", {"model": name, "query": "x", "documents": ["y"]}, **headers))[
            0
        ] == 404
        assert (await call(service, "GET", f"/v1/models/{name}", **headers))[0] == 404
    assert answers[0] == answers[1], "another's model and none at all are told apart"
    status, _ = await service.post(
        "/v1/chat/completions", {"model": "fake-chat", "messages": [{"role": "user", "content": "x"}]}, **headers
    )
    assert status == 200


async def test_the_door_itself_refuses_other_models_whoever_asks(service: Service) -> None:
    """Not only routes: whatever carries the key's id, such as the process of a batch, is held to its models."""
    from pagoda.core.errors import Forbidden, NotFound
    from pagoda.core.types import Call, Embed, Generation, Tokenize

    issued = await service.platform.book.create(Draft(name="door", models=("fake-chat",)), LOCAL)
    bound = Call(key_id=issued.held.key.id)
    door = service.platform.inference
    with pytest.raises(NotFound):
        await anext(door.complete(Generation(model="fake-other", prompt="x"), bound))
    with pytest.raises(NotFound):
        await door.embed(Embed(model="fake-embed", inputs=("x",)), bound)
    with pytest.raises(NotFound):
        await door.tokenize(Tokenize(model="fake-other", text="x"), bound)
    assert (await door.tokenize(Tokenize(model="fake-chat", text="x"), bound)).ids
    await service.platform.book.revoke(issued.held.key.id, LOCAL, keep_admin=True)
    await service.platform.refresh_keys(issued.held.key.id)
    with pytest.raises(Forbidden, match="revoked"):
        await door.tokenize(Tokenize(model="fake-chat", text="x"), bound)


async def test_files_and_batches_are_their_teams_alone(service: Service) -> None:
    ours = bearer(await issue(service, name="ours", team="blue"))
    mates = bearer(await issue(service, name="mates", team="blue"))
    theirs = bearer(await issue(service, name="theirs", team="red"))
    line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"fake-chat","messages":[]}}'
    import aiohttp

    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", line, filename="in.jsonl")
    async with service.session.post(service.url + "/v1/files", data=form, headers=ours) as response:
        file_id = (await response.json())["id"]
    assert (await call(service, "GET", f"/v1/files/{file_id}/content", **mates))[1] == line
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content", f"/v1/files?after={file_id}"):
        assert (await call(service, "GET", path, **theirs))[0] == 404
    assert (await call(service, "DELETE", f"/v1/files/{file_id}", **theirs))[0] == 404
    assert file_id.encode() not in (await call(service, "GET", "/v1/files", **theirs))[1]
    wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert (await service.post("/v1/batches", wanted, **theirs))[0] == 404
    status, batch = await service.post("/v1/batches", wanted, **ours)
    assert status == 200
    for method, path in (("GET", ""), ("POST", "/cancel")):
        assert (await call(service, method, f"/v1/batches/{batch['id']}{path}", **theirs))[0] == 404
    assert (await call(service, "GET", f"/v1/batches/{batch['id']}", **mates))[0] == 200
    assert batch["id"].encode() not in (await call(service, "GET", "/v1/batches", **theirs))[1]


async def test_a_call_carries_team_key_and_no_more_urgency_than_the_key_has(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = await service.platform.book.create(Draft(name="calm", team="green", priority=15), LOCAL)
    seen = []
    resolve = service.platform._service._named  # type: ignore[union-attr]

    async def spy(name: str, call: Any) -> Any:
        seen.append((call.tenant, call.key_id, call.priority))
        return await resolve(name, call)

    monkeypatch.setattr(service.platform._service, "_named", spy)
    for urgency in ("interactive", "normal", "batch"):
        headers = bearer(issued.secret) | {"X-Request-Priority": urgency}
        assert (await service.post("/tokenize", {"model": "fake-chat", "prompt": "x"}, **headers))[0] == 200
    key_id = issued.held.key.id
    assert seen == [("green", key_id, 15), ("green", key_id, 15), ("green", key_id, 20)]


async def test_wrong_keys_are_slowed_down_and_a_known_key_is_not(settings: Settings) -> None:
    server = dataclasses.replace(settings.server, trusted_proxies=("127.0.0.0/8",))
    wanted = dataclasses.replace(settings, server=server, keys=Keys(admin_key=Secret(ADMIN)))
    async with running(wanted, MODELS) as service:
        right = bearer(await issue(service, name="right"))
        from_there = {"X-Forwarded-For": "203.0.113.9"}
        assert (await call(service, "GET", "/v1/models", **right, **from_there))[0] == 200
        statuses = [
            (await call(service, "GET", "/v1/models", **bearer(f"guess {number}"), **from_there))[0]
            for number in range(12)
        ]
        assert statuses[:5] == [401] * 5
        assert 429 in statuses[5:7]
        status, body, told = await call(service, "GET", "/v1/models", **bearer("another"), **from_there)
        assert (status, b"too_many_attempts" in body) == (429, True)
        assert 1 <= int(told["Retry-After"]) <= 30
        for headers in (right, bearer(ADMIN)):  # somebody else behind the same address
            assert (await call(service, "GET", "/v1/models", **headers, **from_there))[0] == 200
        elsewhere = {"X-Forwarded-For": "203.0.113.10"}
        assert (await call(service, "GET", "/v1/models", **bearer("guess"), **elsewhere))[0] == 401
        spoofed = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9, 127.0.0.1"}
        assert (await call(service, "GET", "/v1/models", **bearer("guess"), **spoofed))[0] == 429


async def test_without_an_admin_key_loopback_is_open_but_a_given_key_counts(settings: Settings) -> None:
    async with running(settings, MODELS) as service:
        assert (await call(service, "GET", "/v1/models"))[0] == 200
        assert (await call(service, "GET", "/v1/models", **bearer("sk-none")))[0] == 200
        assert (await call(service, "GET", "/v1/models", **bearer("pk-" + "x" * 43)))[0] == 401
        assert not (settings.home / "pagoda.db").exists(), "nobody has asked for records"
        narrow = bearer(await issue(service, name="narrow", models=("fake-other",)))
        assert b"fake-chat" not in (await call(service, "GET", "/v1/models", **narrow))[1]
        assert (await call(service, "GET", "/api/v1/keys", **narrow))[0] == 403
        assert (await call(service, "GET", "/v1/models", Origin="http://evil.example"))[0] == 403
        status, made = await service.post("/api/v1/keys", {"name": "root", "scopes": ["admin"]})
        assert status == 200
        assert (await call(service, "GET", "/v1/models"))[0] == 401, "from now on keys are needed"
        assert (await call(service, "GET", "/v1/models", **bearer(made["secret"])))[0] == 200


async def test_an_admin_key_that_is_too_short_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="at least 16"):
        async with running(dataclasses.replace(settings, keys=Keys(admin_key=Secret("short"))), MODELS):
            pass


async def test_the_secret_is_found_in_either_header() -> None:
    assert secret_in([(b"authorization", b"Bearer abc"), (b"x-api-key", b"def")]) == b"abc"
    assert secret_in([(b"x-api-key", b"def"), (b"authorization", b"Bearer abc")]) == b"abc"
    assert secret_in([(b"authorization", b"Digest abc"), (b"x-api-key", b"def")]) == b"def"
    assert secret_in([(b"host", b"x")]) is None


async def test_a_wrong_proxy_address_is_told() -> None:
    with pytest.raises(InvalidRequest, match=r"server\.trusted_proxies"):
        networks(["10.0.0.0/8", "my-proxy"])
