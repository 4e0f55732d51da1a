"""Pools as an operator steers them: over HTTP, by command, by DNS; kept over a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.configuration import load_settings
from pagoda.core.errors import ConfigError
from pagoda.core.settings import Settings
from pagoda.service.routing import discovery
from tests.pooled import ask, pooled
from tests.services import Service, eventually, process
from tests.upstreams import pool_of, upstreams

TEXT = " one two three four five six"
CHAT = "/v1/chat/completions"


async def listed(service: Service, name: str = "chat") -> dict[str, Any]:
    """The replicas of a pool by id."""
    async with service.session.get(service.url + "/api/v1/pools") as response:
        assert response.status == 200
        pools = {pool["name"]: pool for pool in (await response.json())["data"]}
    return {replica["id"]: replica for replica in pools[name]["replicas"]}


async def test_replicas_join_and_leave_at_run_time_and_outlive_a_restart(settings: Settings) -> None:
    async with upstreams(2, text=TEXT) as servers:
        pools = {"chat": pool_of(servers[:1], policy="round_robin")}
        second = {"url": servers[1].url, "model": "fake", "key_env": "UPSTREAM_KEY", "weight": 2, "zone": "b"}
        async with pooled(settings, pools) as service:
            assert (await service.post("/api/v1/pools/chat/replicas", second))[0] == 200
            assert (await service.post("/api/v1/pools/chat/replicas", second))[0] == 409
            for wrong in ({"model": "x", "url": "nonsense"}, {"url": servers[1].url}, {"model": "x", "weight": 0}):
                assert (await service.post("/api/v1/pools/chat/replicas", wrong))[0] == 400
            assert (await service.post("/api/v1/pools/none/replicas", second))[0] == 404
            for number in range(6):
                assert (await service.post(CHAT, ask(seed=number)))[0] == 200
            assert [server.asked for server in servers] == [2, 4]
        async with pooled(settings, pools) as service:
            found = (await listed(service))[servers[1].name]
            assert (found["origin"], found["weight"], found["zone"]) == ("api", 2, "b")
            url = f"{service.url}/api/v1/pools/chat/replicas/"
            async with service.session.delete(url + servers[0].name) as response:
                assert response.status == 409, "what settings name is removed there"
            async with service.session.delete(url + servers[1].name) as response:
                assert response.status == 200
            assert set(await listed(service)) == {servers[0].name}
        async with pooled(settings, pools) as service:
            assert set(await listed(service)) == {servers[0].name}


async def test_a_drained_replica_finishes_what_it_has_and_takes_nothing_new(settings: Settings) -> None:
    async with upstreams(2, text=TEXT, token_seconds=0.1) as servers:
        pools = {"chat": pool_of(servers, policy="round_robin")}
        async with pooled(settings, pools) as service:
            running = asyncio.create_task(service.post(CHAT, ask()))
            await eventually(lambda: sum(server.asked for server in servers) == 1)
            busy = next(server for server in servers if server.asked)
            other = next(server for server in servers if server is not busy)
            url = f"/api/v1/pools/chat/replicas/{busy.name}"
            status, state = await service.post(url + "/drain", {})
            assert (status, state["state"], state["outstanding"], state["usable"]) == (200, "draining", 1, False)
            answers = await asyncio.gather(*(service.post(CHAT, ask(seed=number)) for number in range(4)))
            assert [status for status, _ in answers] == [200] * 4
            assert (await running)[0] == 200
            assert (busy.asked, other.asked) == (1, 4)
        async with pooled(settings, pools) as service:
            assert (await listed(service))[busy.name]["state"] == "draining", "a drain outlives a restart"
            assert (await service.post(url + "/resume", {}))[1]["usable"]
            for number in range(4):
                assert (await service.post(CHAT, ask(seed=10 + number)))[0] == 200
            assert busy.asked > 1
            assert (await service.post("/api/v1/pools/chat/replicas/nobody/drain", {}))[0] == 404


async def test_the_own_zone_goes_first_while_it_has_room(settings: Settings) -> None:
    async with upstreams(2, text=TEXT) as servers:
        pool = dict(pool_of(servers, policy="round_robin", zone="a"))
        for row, zone in zip(pool["replicas"], "ab", strict=True):
            row["zone"] = zone
        async with pooled(settings, {"chat": pool}) as service:
            for number in range(4):
                assert (await service.post(CHAT, ask(seed=number)))[0] == 200
            assert [server.asked for server in servers] == [4, 0]
            await servers[0].stop()
            assert (await service.post(CHAT, ask(seed=9)))[0] == 200
            assert servers[1].asked == 1


async def test_every_record_of_a_name_is_a_replica(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with upstreams(3, text=TEXT) as servers:
        found = [server.url for server in servers[:2]]

        async def addresses(url: str) -> list[str]:
            assert url == "http://engines.internal:8000/v1"
            if not found:
                raise OSError("no such name")
            return list(found)

        monkeypatch.setattr(discovery, "addresses", addresses)
        pool = {
            "dns": "http://engines.internal:8000/v1",
            "dns_model": "fake",
            "dns_key_env": "UPSTREAM_KEY",
            "dns_seconds": 0.05,
        }
        async with pooled(settings, {"chat": pool}) as service:
            await eventually(lambda: len(service.platform._routing._router.pools["chat"].replicas) == 2)  # type: ignore[union-attr]
            assert (await service.post(CHAT, ask()))[0] == 200
            found[:] = [servers[1].url, servers[2].url]
            wanted = {servers[1].name, servers[2].name}
            replicas = service.platform._routing._router.pools["chat"].replicas  # type: ignore[union-attr]
            await eventually(lambda: set(replicas) == wanted)
            found.clear()
            await asyncio.sleep(0.2)
            assert set(replicas) == wanted, "a look-up that fails removes nobody"


async def test_a_real_look_up_puts_numbers_in_the_place_of_names() -> None:
    found = await discovery.addresses("http://localhost:8123/v1")
    assert "http://127.0.0.1:8123/v1" in found
    assert all(url.endswith(":8123/v1") for url in found)


def test_all_mistakes_of_pools_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "pagoda.toml").write_text(
        """
[pools.big]
policy = "best"
wait = 3
fallbacks = ["big"]
[[pools.big.replicas]]
url = "nonsense"
weight = "much"
[[pools.big.replicas]]
model = "m"
copys = 2
[pools]
small = 3
"""
    )
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {"HOME": str(tmp_path)}, tmp_path)
    said = "\n".join(caught.value.mistakes)
    for part in (
        "pools.big.policy = 'best'",
        "pools.big.wait ",
        "pools.big.fallbacks",
        "pools.big.replicas[0].model",
        "pools.big.replicas[0].url",
        "pools.big.replicas[0].weight",
        "did you mean copies?",
        "pools.small",
    ):
        assert part in said, said


async def test_the_commands_show_and_steer_a_running_service(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    home = tmp_path / "home"
    home.mkdir()
    async with upstreams(2, text=TEXT) as servers:
        (home / "pagoda.toml").write_text(
            f'[[pools.chat.replicas]]\nurl = "{servers[0].url}"\nmodel = "fake"\nkey_env = "UPSTREAM_KEY"\n'
        )
        environment = {**os.environ, "PAGODA_HOME": str(home)}

        def pagoda(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "pagoda", "pools", *words],
                cwd=home,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        def steer() -> None:
            with process(home, environment=environment):
                added = pagoda("add", "chat", "--url", servers[1].url, "--model", "fake", "--key-env", "UPSTREAM_KEY")
                assert added.returncode == 0, added.stderr
                assert pagoda("drain", "chat", servers[0].name).returncode == 0
                shown = json.loads(pagoda("list", "--json").stdout)
                states = {replica["id"]: replica["state"] for replica in shown[0]["replicas"]}
                assert states == {servers[0].name: "draining", servers[1].name: "up"}
                assert pagoda("resume", "chat", servers[0].name).returncode == 0
                assert pagoda("remove", "chat", servers[1].name).returncode == 0
                assert servers[0].name in pagoda("list").stdout
                missing = pagoda("drain", "chat", "nobody")
                assert missing.returncode == 1
                assert len(missing.stderr.strip().splitlines()) == 1

        await asyncio.to_thread(steer)
