"""Two gateway processes with one Redis and one PostgreSQL: limits and budgets are exact over both."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from pagoda.core.setting_values import Secret
from pagoda.core.settings import Settings, Storage
from pagoda.core.storage.records import BudgetRecord
from pagoda.core.storage.store import open_store
from tests.redis_server import RedisServer, redis_server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="rd-") as path, redis_server(Path(path)) as running:
        yield running


@pytest.mark.requires("redis-server")
async def test_ten_a_minute_and_a_budget_are_exact_over_two_gateways(
    server: RedisServer, postgresql_url: str, tmp_path: Path
) -> None:
    database = Settings(home=tmp_path, storage=Storage(url=Secret(postgresql_url)))
    async with open_store(database):
        pass
    children = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.integration.limits_gateway",
            str(tmp_path / name),
            postgresql_url,
            server.url,
        ]
        paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
        environment = {**os.environ, "PYTHONPATH": paths}
        children.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
            )
        )
    try:
        for child in children:
            assert child.stdout is not None
            assert (await asyncio.to_thread(child.stdout.readline)).strip() == "ready"
        outputs = await asyncio.gather(*(asyncio.to_thread(child.communicate, "go\n", 60) for child in children))
    finally:
        for child in children:
            child.kill()
            child.communicate()
    told = [orjson.loads(output.splitlines()[-1]) for output, _ in outputs]
    assert sum(each["rate"] for each in told) == 10
    refused = [word for each in told for word in each["refused"]]
    assert refused.count("rate rate_limit_exceeded") == 190
    async with open_store(database) as store, store.read() as session:
        budget = await session.get_one(BudgetRecord, ("key:budget", "total"))
    assert (budget.leased_tokens, budget.leased_money) == (0, 0)
    assert budget.spent_tokens == sum(each["tokens"] for each in told)
    assert 5000 - 101 <= budget.spent_tokens <= 5000  # what is left would not hold another prompt's bound
