"""The gateways that are compared, each started on the one core with the same upstream behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.upstream import GATEWAY_CORE
from tests.services import free_port

LITELLM = os.environ.get("LITELLM", "litellm")
"""LiteLLM's command; it wants an environment of its own (``pip install 'litellm[proxy]==1.100.0'``)."""


@dataclass(frozen=True)
class Gateway:
    """A running gateway: where it is asked, with which key, and its process."""

    url: str
    key: str
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory that it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _started(command: Sequence[str], url: str, key: str, folder: str, environment: dict[str, str]) -> Iterator[Gateway]:
    with Path(folder, "log").open("wb") as log:
        child = subprocess.Popen(
            ["taskset", "-c", GATEWAY_CORE, *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(url, child, Path(folder, "log"))
        yield Gateway(url, key, child.pid)
    finally:
        child.terminate()
        child.wait()


def _wait_for(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if child.poll() is not None:
            raise RuntimeError(f"the gateway ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(url + "/health", timeout=1)
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the gateway did not answer: {log.read_text()[-2000:]}")


@contextmanager
def pagoda(upstream: str, settings: dict[str, str] | None = None) -> Iterator[Gateway]:
    """Pagoda with everything on: a key with limits and a budget, cache look-ups, metrics and logs."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PAGODA_HOME": folder, "PAGODA_LOG_FORMAT": "json", **(settings or {})}

        def ask(*words: str) -> str:
            command = [sys.executable, "-m", "pagoda", *words]
            done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
            return done.stdout.decode()

        ask("models", "add", "mock", "--url", upstream + "/v1")
        limits = (
            "--rpm",
            "100000000",
            "--tpm",
            "100000000000",
            "--concurrent",
            "100000",
            "--budget-tokens",
            "10000000000",
        )
        key = json.loads(ask("keys", "create", "--name", "bench", *limits, "--json"))["secret"]
        port = free_port()
        command = [sys.executable, "-m", "pagoda", "serve", "--port", str(port)]
        with _started(command, f"http://127.0.0.1:{port}", key, folder, environment) as gateway:
            yield gateway


@contextmanager
def plain(upstream: str) -> Iterator[Gateway]:
    """FastAPI and aiohttp that pass bodies on and do nothing else: what these libraries cost by themselves."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "uvicorn", "benchmarks.gateway.plain:app", "--port", str(port)]
        command += ["--log-level", "error", "--no-access-log"]
        environment = {"UPSTREAM": upstream, "PYTHONPATH": str(Path.cwd())}
        with _started(command, f"http://127.0.0.1:{port}", "", folder, environment) as gateway:
            yield gateway


@contextmanager
def litellm(upstream: str) -> Iterator[Gateway]:
    """LiteLLM's proxy with a master key, no database, one worker."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        parameters = {"model": "openai/mock", "api_base": upstream + "/v1", "api_key": "none"}
        config = {
            "model_list": [{"model_name": "mock", "litellm_params": parameters}],
            "general_settings": {"master_key": "sk-bench"},
        }
        Path(folder, "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        command = [LITELLM, "--config", "config.yaml", "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        environment = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with _started(command, f"http://127.0.0.1:{port}", "sk-bench", folder, environment) as gateway:
            yield gateway
