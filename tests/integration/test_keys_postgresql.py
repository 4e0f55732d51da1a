"""Keys on a real PostgreSQL: two services on one database, and the database frozen, restarted and gone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pagoda.core.setting_values import Secret
from pagoda.core.settings import Keys, Settings, Storage
from pagoda.service.keys.book import LOCAL
from pagoda.service.keys.draft import Draft
from tests.conftest import settings_in
from tests.services import Service, eventually, fake_model, running

if TYPE_CHECKING:
    from tests.integration.conftest import Cluster

MODELS = (fake_model(),)
KEYS = Keys(refresh_seconds=0.1, lookup_seconds=0.5, stale_seconds=3600)


def on(folder: Path, url: str, keys: Keys = KEYS) -> Settings:
    """Settings of one host on that database."""
    return replace(settings_in(folder), storage=Storage(url=Secret(url)), keys=keys)


@pytest.fixture
async def service(own_postgresql: Cluster, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(on(tmp_path, own_postgresql.new_database()), MODELS) as started:
        await issue(started, "root", "admin")
        await started.platform.refresh_keys()
        yield started


async def issue(service: Service, name: str, scope: str = "inference") -> str:
    scopes: frozenset[str] = frozenset({scope})
    return (await service.platform.book.create(Draft(name=name, scopes=scopes), LOCAL)).secret  # type: ignore[arg-type]


async def status(service: Service, secret: str) -> tuple[int, str | None]:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    async with service.session.get(service.url + "/v1/models", headers=headers) as response:
        body = await response.json()
        return response.status, body["error"]["code"] if "error" in body else None


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """All processes of the server stand still."""
    head = psutil.Process(int((cluster.directory / "data" / "postmaster.pid").read_text().split()[0]))
    everybody = [head, *head.children(recursive=True)]
    for each in everybody:
        os.kill(each.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in everybody:
            os.kill(each.pid, signal.SIGCONT)


async def test_frozen_known_keys_work_and_others_are_refused_until_it_moves_again(
    service: Service, own_postgresql: Cluster
) -> None:
    known, other = await issue(service, "known"), await issue(service, "other")
    assert await status(service, known) == (200, None)
    with frozen(own_postgresql):
        async with asyncio.timeout(20):
            assert await status(service, known) == (200, None)
            assert await status(service, other) == (503, "keys_unavailable")
            assert await status(service, "") == (401, "missing_api_key")
            await eventually(lambda: not service.platform.keys.fresh)
            assert await status(service, known) == (200, None)
    await eventually(lambda: service.platform.keys.fresh)
    assert await status(service, other) == (200, None)


async def test_gone_known_keys_work_and_others_are_refused_until_it_is_back(
    service: Service, own_postgresql: Cluster
) -> None:
    known, other = await issue(service, "known"), await issue(service, "other")
    assert await status(service, known) == (200, None)
    own_postgresql.stop()
    await eventually(lambda: not service.platform.keys.fresh)
    assert await status(service, known) == (200, None)
    assert await status(service, other) == (503, "keys_unavailable")
    assert await status(service, "pk-" + "x" * 43) == (503, "keys_unavailable")
    own_postgresql.start()
    await eventually(lambda: service.platform.keys.fresh)
    assert await status(service, other) == (200, None)
    assert await status(service, "pk-" + "x" * 43) == (401, "invalid_api_key")


async def test_after_the_stated_time_without_a_database_no_key_works(own_postgresql: Cluster, tmp_path: Path) -> None:
    settings = on(tmp_path, own_postgresql.new_database(), replace(KEYS, stale_seconds=0.5))
    async with running(settings, MODELS) as service:
        secret = await issue(service, "known", "admin")
        await service.platform.refresh_keys()
        assert await status(service, secret) == (200, None)
        own_postgresql.stop()
        await asyncio.sleep(1.0)
        assert await status(service, secret) == (503, "keys_unavailable")


async def test_a_service_that_starts_without_its_database_is_shut_and_opens_when_it_comes(
    own_postgresql: Cluster, tmp_path: Path
) -> None:
    url = own_postgresql.new_database()
    own_postgresql.stop()
    async with running(on(tmp_path, url), MODELS) as service:
        assert await status(service, "") == (503, "keys_unavailable")
        async with service.session.get(service.url + "/health") as response:
            assert response.status == 200
        own_postgresql.start()
        await eventually(lambda: service.platform.keys.certain)
        assert await status(service, "") == (200, None), "there is no admin key, and this is loopback"


async def test_two_hosts_on_one_database_agree_within_the_renewal(own_postgresql: Cluster, tmp_path: Path) -> None:
    url = own_postgresql.new_database()
    async with running(on(tmp_path / "a", url), MODELS) as here, running(on(tmp_path / "b", url), MODELS) as there:
        await issue(here, "root", "admin")
        await here.platform.refresh_keys()
        assert await status(here, "") == (401, "missing_api_key")
        await eventually(lambda: there.platform.keys.required)
        secret = await issue(here, "app")
        assert await status(there, secret) == (200, None), "a new key works everywhere at once"
        held = await here.platform.book.revoke("app", LOCAL, keep_admin=True)
        await here.platform.refresh_keys(held.key.id)
        assert (await status(here, secret))[0] == 401
        await eventually(lambda: there.platform.keys.get(held.key.id) is None)
        assert await status(there, secret) == (401, "key_revoked")


async def test_many_processes_that_need_an_admin_key_make_one(own_postgresql: Cluster, tmp_path: Path) -> None:
    async with running(on(tmp_path, own_postgresql.new_database()), MODELS) as service:
        made = await asyncio.gather(*(service.platform.book.ensure_admin() for _ in range(8)))
        assert len([each for each in made if each is not None]) == 1
