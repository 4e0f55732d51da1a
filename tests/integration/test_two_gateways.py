"""Two gateways as processes on one PostgreSQL and one Redis: a key's limits hold over both, exactly."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from pagoda.model.catalog.entry_file import write_entry
from tests.redis_server import redis_server
from tests.services import fake_model, process

if TYPE_CHECKING:
    from tests.integration.conftest import Cluster

REQUESTS = 200
MODEL = fake_model(text=" ".join(str(number) for number in range(50)), token_seconds=0.001)


class Gateways:
    """Their addresses, and the commands that an operator gives on one of the machines."""

    def __init__(self, urls: list[str], environment: dict[str, str]) -> None:
        self.urls = urls
        self._environment = environment

    def command(self, *words: str) -> Any:
        """``pagoda ... --json`` on the first machine."""
        done = subprocess.run(
            [sys.executable, "-m", "pagoda", *words, "--json"],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    async def ask(self, secret: str, count: int, **fields: Any) -> list[tuple[int, Any, Any]]:
        """So many requests at once, every other one to the other gateway."""
        headers = {"Authorization": f"Bearer {secret}"}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(number: int) -> tuple[int, Any, Any]:
                body = {"messages": [{"role": "user", "content": f"question {number}"}], **fields}
                url = self.urls[number % len(self.urls)] + "/v1/chat/completions"
                async with session.post(url, json=body) as response:
                    return response.status, await response.json(), response.headers

            return await asyncio.gather(*(one(number) for number in range(count)))


@pytest.fixture
def gateways(postgresql: Cluster, tmp_path: Path) -> Iterator[Gateways]:
    database = postgresql.new_database()
    with ExitStack() as stack:
        (tmp_path / "redis").mkdir()
        redis = stack.enter_context(redis_server(tmp_path / "redis"))
        shared = {
            "PAGODA_STORAGE_URL": database,
            "PAGODA_LIMITS_REDIS_URL": redis.url,
            "PAGODA_LIMITS_REDIS_SECONDS": "5",
            "PAGODA_DEFAULTS_CHAT": MODEL.id,
            "PAGODA_LIMITS_WRITE_SECONDS": "0.1",
        }
        urls = []
        for name in ("one", "two"):
            entries = tmp_path / name / "models" / "entries"
            entries.mkdir(parents=True)
            (entries / f"{MODEL.id}.yaml").write_text(write_entry(MODEL), encoding="utf-8")
            urls.append(stack.enter_context(process(tmp_path / name, environment=shared))[0])
        yield Gateways(urls, {**shared, "PAGODA_HOME": str(tmp_path / "one")})


@pytest.mark.requires("redis-server", "initdb")
async def test_a_key_gets_exactly_its_requests_and_its_budget_from_both(gateways: Gateways) -> None:
    limited = gateways.command("keys", "create", "--name", "app", "--rpm", "10")["secret"]
    answers = await gateways.ask(limited, REQUESTS, max_tokens=8)
    assert Counter(status for status, _, _ in answers) == {200: 10, 429: REQUESTS - 10}
    refused = [
        (body["error"]["code"], int(headers["Retry-After"])) for status, body, headers in answers if status == 429
    ]
    assert {code for code, _ in refused} == {"rate_limit_exceeded"}
    assert all(1 <= seconds <= 60 for _, seconds in refused)

    bounded = gateways.command("keys", "create", "--name", "batch", "--budget-tokens", "3000")
    used = 0
    for _ in range(40):
        answers = await gateways.ask(bounded["secret"], 20, max_tokens=40)
        used += sum(body["usage"]["total_tokens"] for status, body, _ in answers if status == 200)
        codes = {body["error"]["code"] for status, body, _ in answers if status == 429}
        if codes == {"insufficient_quota"}:
            break
    assert 2500 < used <= 3000, "what is left is less than one answer's worst case"
    await asyncio.sleep(1.0)  # what both have to write is written every tenth of a second
    report = gateways.command("keys", "usage", "--key", bounded["id"])
    counted = sum(row["prompt_tokens"] + row["completion_tokens"] for row in report["rows"])
    assert counted == used
    assert all(row["key"] == bounded["id"] for row in report["rows"])
