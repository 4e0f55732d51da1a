"""``deploy/nginx/nginx.conf`` as it is, in real nginx before two real Pagodas."""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.deployed import HEADERS, CountedModel, ask, behind_nginx, counted_model, furnish, nginx
from tests.services import eventually, free_port, process

pytestmark = pytest.mark.requires("nginx")


@dataclass
class Deployment:
    """Two gateways behind nginx, and the model that both ask."""

    url: str
    session: aiohttp.ClientSession
    model: CountedModel
    gateways: tuple[Popen[bytes], Popen[bytes]]
    folder: Path


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    ports = (free_port(), free_port())
    async with counted_model(token_seconds=0.05) as model, aiohttp.ClientSession() as session:
        with ExitStack() as stack:
            first, second = (
                stack.enter_context(
                    process(furnish(tmp_path / str(port), model.entry), "--port", str(port), environment=behind_nginx())
                )[1]
                for port in ports
            )
            async with nginx(tmp_path / "nginx", ports) as url:
                yield Deployment(url, session, model, (first, second), tmp_path)


async def get(deployment: Deployment, path: str, **headers: str) -> tuple[int, Any, bytes]:
    async with deployment.session.get(deployment.url + path, headers=headers) as response:
        return response.status, response.headers, await response.read()


async def test_tokens_come_one_by_one_and_the_client_is_who_nginx_saw(deployment: Deployment) -> None:
    text = " ".join(f"w{number}" for number in range(20))
    body = {"messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 50, "temperature": 0}
    async with deployment.session.post(f"{deployment.url}/v1/chat/completions", json=body, headers=HEADERS) as response:
        assert response.status == 200
        times = [time.monotonic() async for line in response.content if line.startswith(b"data: ")]
    assert len(times) > 20
    gaps = sum(later - sooner > 0.02 for sooner, later in itertools.pairwise(times))
    assert gaps > 15  # a proxy that buffered would hand them over together

    # Whoever invents addresses is still one client: nginx says whom it saw, and Pagoda believes nginx.
    statuses = []
    for number in range(24):
        forged = {"Authorization": f"Bearer pk-{number:043d}", "X-Forwarded-For": f"203.0.113.{number}"}
        statuses.append((await get(deployment, "/v1/models", **forged))[0])
    assert statuses[0] == 401
    assert 429 in statuses


async def test_files_of_the_page_may_be_kept_for_ever_and_operators_routes_are_not_public(
    deployment: Deployment,
) -> None:
    page = (await get(deployment, "/"))[2].decode()
    name = "/static/" + page.split('href="static/', 1)[1].split('"', 1)[0]
    status, headers, body = await get(deployment, name)
    assert (status, headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
    assert "Set-Cookie" not in headers
    assert (await get(deployment, name, **{"If-None-Match": headers["ETag"]}))[0] == 304
    for gateway in deployment.gateways:
        gateway.kill()
    status, _, again = await get(deployment, name)  # nginx has kept it
    assert (status, again) == (200, body)
    for path in ("/metrics", "/internal/v1/states", "/api/v1/keys", "/api/v1/keys/x", "/api/v1/drain", "/api/v1/cache"):
        async with deployment.session.get(deployment.url + path, headers=HEADERS) as response:
            assert response.status == 404, path
    async with deployment.session.post(deployment.url + "/api/v1/models/counted/unload", headers=HEADERS) as response:
        assert response.status == 404


async def test_a_gateway_that_dies_is_left_and_no_question_is_computed_twice(deployment: Deployment) -> None:
    text = " ".join(f"w{number}" for number in range(40))
    tasks = [
        asyncio.create_task(ask(deployment.session, deployment.url, f"{text} {n}", stream=False)) for n in range(6)
    ]
    await eventually(lambda: sum(deployment.model.asked.values()) == 6)
    deployment.gateways[0].kill()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    lost = [answer for answer in done if isinstance(answer, BaseException)]
    assert 0 < len(lost) < 6
    assert all("502" in str(error) for error in lost)  # a clear error, since whether it was computed is not known
    for number in range(12):
        assert await ask(deployment.session, deployment.url, f"after {number}", stream=False) == f"fake after {number}"
    assert set(deployment.model.asked.values()) == {1}


async def test_too_much_from_one_address_is_refused_in_our_form(deployment: Deployment) -> None:
    async def one() -> tuple[int, Any, bytes]:
        return await get(deployment, "/ready")

    began = time.monotonic()
    answers = await asyncio.gather(*(one() for _ in range(400)))
    most = 200 + 50 * (time.monotonic() - began) + 1  # a burst of 200 and 50 a second go through
    refused = [answer for answer in answers if answer[0] == 429]
    assert {answer[0] for answer in answers} == {200, 429}
    assert 400 - most <= len(refused) <= 200
    assert b'"code":"address_limit"' in refused[0][2]
    assert refused[0][1]["Retry-After"] == "1"
    async with deployment.session.post(
        f"{deployment.url}/v1/completions", data=io.BytesIO(b"x" * (17 * 1024 * 1024)), headers=HEADERS
    ) as response:
        assert response.status in (413, 429)
    await asyncio.sleep(1.0)  # the time that the answer told
    assert (await one())[0] == 200


async def test_what_one_gateway_refuses_the_other_answers(tmp_path: Path) -> None:
    """503 says that nothing was begun, so it may be asked elsewhere, once."""
    ports = (free_port(), free_port())
    refused = 0

    async def refuse(request: web.Request) -> web.Response:
        nonlocal refused
        refused += 1
        return web.Response(status=503, headers={"Retry-After": "1"})

    async with counted_model() as model, aiohttp.ClientSession() as session:
        runner = web.AppRunner(web.Application(), access_log=None)
        runner.app.router.add_route("*", "/{path:.*}", refuse)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", ports[0]).start()
        home = furnish(tmp_path / "b", model.entry)
        with process(home, "--port", str(ports[1]), environment=behind_nginx()) as (_, second):
            async with nginx(tmp_path / "nginx", ports) as url:
                already = refused
                for number in range(12):
                    assert await ask(session, url, f"q {number}", stream=number % 2 == 0) == f"fake q {number}"
                assert refused > already  # some of them had been sent to the one that refuses
                second.kill()
                with pytest.raises(AssertionError, match=r"50[23]"):  # nobody is left: said, not waited for
                    await ask(session, url, "who is there", stream=False)
        await runner.cleanup()
    assert set(model.asked.values()) == {1}
