"""Several processes behind one port: they are one service, and the death of one is nobody else's."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from pagoda.service.crew import Crew, read_crew
from pagoda.service.presence import Presence
from tests.deployed import HEADERS, Load, ask, behind_nginx, counted_model, furnish
from tests.services import WAIT_SECONDS, eventually, fake_model, process

ENVIRONMENT = behind_nginx(PAGODA_SERVER_WORKERS="3", PAGODA_SERVER_DRAIN_GRACE_SECONDS="0.5")


def crew_of(home: Path) -> Crew:
    crew = read_crew(home)
    assert crew is not None
    return crew


def owner_of(home: Path) -> int:
    notice = Presence(home).find()
    assert notice is not None
    return notice.pid


async def get(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=HEADERS) as response:
        found: dict[str, Any] = await response.json()
        return found


async def test_workers_are_one_service_and_all_drain(tmp_path: Path) -> None:
    async with counted_model(token_seconds=0.02) as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=ENVIRONMENT) as (url, captain):
            crew = crew_of(tmp_path)
            assert (crew.captain, len(set(crew.workers)), crew.alive) == (captain.pid, 3, 3)
            assert (await get(f"{url}/health"))["workers"] == {"wanted": 3, "alive": 3}
            doctor = [sys.executable, "-m", "pagoda", "doctor"]
            environment = {**os.environ, "PAGODA_HOME": str(tmp_path)}
            said = subprocess.run(doctor, capture_output=True, text=True, check=False, env=environment).stdout
            assert "3 of 3 workers live" in said
            load = Load(url)
            load.start(session, clients=8, words=20)
            await eventually(lambda: len(load.answered) > 20)
            await load.stop()
            late = [asyncio.create_task(ask(session, url, f"late {n} {'x ' * 50}".strip(), stream=True)) for n in "abc"]
            await eventually(lambda: sum(model.asked.values()) == len(load.sent) + 3)
            async with session.post(f"{url}/api/v1/drain", headers=HEADERS) as response:
                assert response.status == 202  # one worker was asked, for all of them
            assert await asyncio.to_thread(captain.wait, WAIT_SECONDS) == 0
            assert all([(await task).startswith("fake late") for task in late])
        assert (load.wrong, load.sent, model.asked.keys()) == ([], set(load.answered), model.asked.keys())
        assert set(model.asked.values()) == {1}
        assert not any(psutil.pid_exists(pid) for pid in crew.workers)
        assert read_crew(tmp_path) is None


async def test_workers_count_and_limit_as_one(tmp_path: Path) -> None:
    async with counted_model() as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=ENVIRONMENT) as (url, _):
            wanted = {"name": "app", "limits": {"requests_per_minute": 10}}
            async with session.post(f"{url}/api/v1/keys", json=wanted, headers=HEADERS) as response:
                limited = {"Authorization": f"Bearer {(await response.json())['secret']}", "Connection": "close"}

            async def status(number: int) -> int:
                body = {"messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": 5}
                async with session.post(f"{url}/v1/chat/completions", json=body, headers=limited) as answer:
                    await answer.read()
                    return answer.status

            statuses = await asyncio.gather(*(status(number) for number in range(60)))
            assert (statuses.count(200), statuses.count(429)) == (10, 50)
            counted = {}
            for _ in range(50):  # the others tell the owner every other second
                async with session.get(f"{url}/metrics", headers=HEADERS) as response:
                    counted = dict(
                        re.findall(
                            r'nlp_requests_total\{endpoint="/v1/chat/completions",status="(\d+)"\} (\S+)',
                            await response.text(),
                        )
                    )
                if counted == {"200": "10.0", "429": "50.0"}:
                    break
                await asyncio.sleep(0.2)
            assert counted == {"200": "10.0", "429": "50.0"}


async def test_a_worker_killed_in_mid_stream_breaks_its_own_streams_alone(tmp_path: Path) -> None:
    async with counted_model(token_seconds=0.05) as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=ENVIRONMENT) as (url, _):
            text = " ".join(f"w{number}" for number in range(60))
            before = crew_of(tmp_path)
            owner = owner_of(tmp_path)
            streams = [asyncio.create_task(ask(session, url, f"{text} {n}", stream=True)) for n in range(9)]
            await eventually(lambda: sum(model.asked.values()) == 9)
            holding = {pid: clients_of(pid, url) for pid in before.workers}
            victim = max((pid for pid in before.workers if pid != owner), key=lambda pid: holding[pid])
            assert holding[victim] > 0, holding
            os.kill(victim, signal.SIGKILL)
            done = await asyncio.gather(*streams, return_exceptions=True)
            broken = [answer for answer in done if isinstance(answer, BaseException)]
            assert len(broken) == holding[victim], (holding, broken)
            assert all(isinstance(error, aiohttp.ClientError) for error in broken)
            assert sum(answer == f"fake {text} {n}" for n, answer in enumerate(done)) == 9 - len(broken)
            await eventually(lambda: crew_of(tmp_path).alive == 3 and victim not in crew_of(tmp_path).workers)
            assert await ask(session, url, "and on", stream=False) == "fake and on"
            assert owner_of(tmp_path) == owner
            assert set(model.asked.values()) == {1}  # nobody's question was asked again


async def test_a_killed_owner_comes_back_and_requests_wait_for_it(tmp_path: Path) -> None:
    home = furnish(tmp_path, fake_model("fake-chat"))
    environment = {**ENVIRONMENT, "PAGODA_DEFAULTS_CHAT": "fake-chat"}
    async with aiohttp.ClientSession() as session:
        with process(home, environment=environment) as (url, _):
            assert await ask(session, url, "hello", stream=False) == "fake hello"
            owner = owner_of(home)
            engines = [child.pid for child in psutil.Process(owner).children(recursive=True)]
            os.kill(owner, signal.SIGKILL)
            answered = 0

            async def again() -> None:
                nonlocal answered
                while answered < 3:
                    try:
                        assert await ask(session, url, "hello again", stream=True) == "fake hello again"
                        answered += 1
                    except (aiohttp.ClientError, AssertionError):
                        await asyncio.sleep(0.05)  # it was on its way to the one that died

            async with asyncio.timeout(WAIT_SECONDS):
                await again()
            assert owner_of(home) != owner
            await eventually(lambda: crew_of(home).alive == 3)
            await eventually(lambda: not any(running(pid) for pid in engines))


async def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    async with counted_model() as model:
        with process(furnish(tmp_path, model.entry), environment=ENVIRONMENT) as (_, captain):
            workers = crew_of(tmp_path).workers
            captain.kill()
            captain.wait()
            await eventually(lambda: not any(running(pid) for pid in workers), WAIT_SECONDS)


def test_a_service_that_cannot_start_says_so_once_and_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "PAGODA_HOME": str(tmp_path), "PAGODA_SERVER_TRUSTED_PROXIES": "nonsense"}
    command = [sys.executable, "-m", "pagoda", "serve", "--port", "0", "--workers", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("server.trusted_proxies must be addresses") == 1


def test_several_instances_refuse_to_start_without_shared_stores(tmp_path: Path) -> None:
    environment = {**os.environ, "PAGODA_HOME": str(tmp_path), "PAGODA_SERVER_INSTANCES": "several"}
    command = [sys.executable, "-m", "pagoda", "serve", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.returncode == 2
    for name in ("storage.url", "limits.redis_url", "cache.redis_url"):
        assert name in done.stderr


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def clients_of(pid: int, url: str) -> int:
    """Connections that a process holds to clients of the public port."""
    port = int(url.rpartition(":")[2])
    connections = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in connections)
