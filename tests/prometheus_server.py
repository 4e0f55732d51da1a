"""A real Prometheus for tests, under the configuration of ``deploy/``: only its targets, paths and pace are changed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.services import free_port

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
WAIT_SECONDS = 30.0


class Prometheus:
    """A running server, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    async def ask(self, path: str, **parameters: str) -> Any:
        """An answer's data. Fails on a query that Prometheus refuses."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/{path}", params=parameters) as response,
        ):
            answer = await response.json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression gives now: labels and value of each series."""
        data = await self.ask("query", query=expression)
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    async def history(
        self, expression: str, began: float, ended: float, step: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """What it gave from one Unix time to another: labels and points of each series."""
        data = await self.ask("query_range", query=expression, start=f"{began}", end=f"{ended}", step=f"{step}")
        return [(series["metric"], [(at, float(value)) for at, value in series["values"]]) for series in data["result"]]


def configure(folder: Path, targets: Sequence[str], token: str, seconds: int) -> Path:
    """``deploy/prometheus/prometheus.yml`` with these targets, and files of this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8")
    for name, target in zip(("pagoda-a:8000", "pagoda-b:8000"), targets, strict=True):
        assert text.count(name) == 1
        text = text.replace(name, target)
    assert text.count("/etc/prometheus/") == 2
    text = text.replace("/etc/prometheus/", f"{folder}/").replace("15s", f"{seconds}s")
    (folder / "pagoda.token").write_text(token, encoding="utf-8")
    (folder / "alerts.yml").write_bytes((DEPLOY / "prometheus/alerts.yml").read_bytes())
    place = folder / "prometheus.yml"
    place.write_text(text, encoding="utf-8")
    return place


@contextmanager
def prometheus(folder: Path, targets: Sequence[str], token: str, seconds: int = 1) -> Iterator[Prometheus]:
    """A server that scrapes these two addresses every so many seconds."""
    place, port = configure(folder, targets, token, seconds), free_port()
    flags = ["--storage.tsdb.path", str(folder / "data"), "--web.listen-address", f"127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            ["prometheus", "--config.file", str(place), *flags],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=dict(os.environ),
        )
    try:
        end = time.monotonic() + WAIT_SECONDS
        while b"Server is ready" not in (folder / "log").read_bytes():
            assert child.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, "Prometheus did not start"
            time.sleep(0.05)
        yield Prometheus(port)
    finally:
        child.terminate()
        child.wait(WAIT_SECONDS)
