"""The two servers that are compared, each a fresh process tree: bare vLLM, and Pagoda on vLLM with the same flags.

The flags of the bare one are those that Pagoda's own engine kind would give it, less the middleware that guards its
port. With ``stand_in`` both run the fake engine, which shows on any machine that the comparison itself works.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagoda.core.configuration import load_settings
from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import LocalPath, ModelEntry, Scripted
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.engines.vllm import Vllm
from pagoda.service.hardware import gpu_memory, room_of

MODEL = "shape"
_END_SECONDS = 60.0
_FREE_SECONDS = 30.0
_LOOK_SECONDS = 0.25
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SCRIPT = {"first_seconds": 0.05, "token_seconds": 0.002}


class ServerFailed(Exception):
    """Control signal: this step gives nothing; the others go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What both servers get."""

    checkpoint: Path
    work: Path
    concurrency: int
    arguments: tuple[str, ...]
    """Of vLLM, further ones."""
    limit: float
    """Seconds a server may take to be ready."""
    stand_in: bool = False
    models: tuple[str, ...] = (MODEL,)
    """Entries of Pagoda on the one checkpoint; the first is loaded at its start."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Of Pagoda's environment, beside and above what follows from the rest."""

    def environment(self, home: Path) -> dict[str, str]:
        """Settings of Pagoda, by which the bare server's flags are made too."""
        found = {
            "PAGODA_HOME": str(home),
            "PAGODA_ENGINES_PARALLEL": str(self.concurrency),
            "PAGODA_ENGINES_VLLM_ARGUMENTS": ",".join(self.arguments),
            "PAGODA_ENGINES_START_SECONDS": str(self.limit),
            "PAGODA_ADMISSION_QUEUE": str(2 * self.concurrency),
            "PAGODA_MODELS_PRELOAD": self.models[0],
        }
        if not self.stand_in and "PAGODA_ENGINES_GPU_MEMORY" not in self.more:
            found["PAGODA_ENGINES_MEMORY"] = "64GiB"  # of this host, some of which hide most of theirs until it is used
            found["PAGODA_ENGINES_GPU_MEMORY"] = str(int(0.92 * (gpu_memory() or _torch_memory())))
        return {**found, **self.more}

    def settings(self, home: Path) -> Settings:
        """The same as values."""
        return load_settings({}, self.environment(home), self.work)


@contextmanager
def bare(ground: Ground, name: str) -> Iterator[str]:
    """vLLM's own server; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    if ground.stand_in:
        command = [sys.executable, "-m", "benchmarks.gpu.stand_in", str(port), json.dumps(_SCRIPT)]
        with _process(command, {}, ground.work / f"{name}.log") as child:
            _wait(child, lambda: _get(url + "/health") is not None, ground.limit, name)
            yield url
        return
    room = room_of(ground.settings(ground.work).engines)
    plan = Vllm().plan(_entry(ground), ground.checkpoint, room, "")
    flags = list(plan.config["arguments"])
    at = flags.index("--middleware")
    del flags[at : at + 2]
    host = ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-log-level", "warning"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *host, *flags]
    environment = {key: value for key, value in plan.environment.items() if key != "PAGODA_ENGINE_KEY"}
    with _process(command, environment, ground.work / f"{name}.log") as child:
        _wait(child, lambda: _get(url + "/health") is not None, ground.limit, name)
        yield url


@contextmanager
def pagoda(ground: Ground, name: str) -> Iterator[str]:
    """``pagoda serve`` with the model loaded; its address."""
    home = ground.work / f"{name}-home"
    for model in ground.models:
        open_shelf(ground.settings(home)).catalog.add(_entry(ground, model), replace=True)
    log = ground.work / f"{name}.log"
    with _process([sys.executable, "-m", "pagoda", "serve", "--port", "0"], ground.environment(home), log) as child:
        end = time.monotonic() + ground.limit
        _wait(child, lambda: _announced(log) is not None, ground.limit, name)
        url = _announced(log) or ""
        _wait(child, lambda: _loaded(url, name, ground.models[0]), end - time.monotonic(), name)
        yield url


def _entry(ground: Ground, model: str = MODEL) -> ModelEntry:
    if ground.stand_in:
        return ModelEntry(id=model, task="chat", engine="fake", source=Scripted(script=_SCRIPT))
    return ModelEntry(id=model, task="chat", engine="vllm", source=LocalPath(path=str(ground.checkpoint)))


def _announced(log: Path) -> str | None:
    found = re.search(r"ready: (http://\S+)", log.read_text(errors="replace"))
    return found[1] if found else None


def _loaded(url: str, name: str, model: str) -> bool:
    answer = _get(url + "/api/v1/models")
    for row in (answer or {}).get("data", ()):
        if row["id"] == model:
            if row["state"] == "failed":
                raise ServerFailed(f"{name}: {row['reason']}")
            return bool(row["state"] == "ready")
    return False


def _get(url: str) -> dict[str, Any] | None:
    try:
        with _DIRECT.open(url, timeout=5) as response:
            raw = response.read()
    except (OSError, http.client.HTTPException):
        return None
    return dict(json.loads(raw)) if raw else {}


def _wait(child: subprocess.Popen[bytes], ready: Any, seconds: float, name: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if child.poll() is not None:
            raise ServerFailed(f"{name}: the server ended with status {child.returncode}; its log says why")
        if time.monotonic() > end:
            raise ServerFailed(f"{name}: the server was not ready in time")
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _process(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, of which nothing is left afterwards, on the GPU either."""
    log.parent.mkdir(parents=True, exist_ok=True)
    before = _gpu_in_use()
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        yield child
    finally:
        for word in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, word)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_END_SECONDS)
        end = time.monotonic() + _FREE_SECONDS
        while _gpu_in_use() > before + 1024 and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)


def _gpu_in_use() -> int:
    """MiB of all GPUs; 0 where nothing says."""
    try:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(int(line) for line in text.split() if line.isdigit())


def _torch_memory() -> int:
    """Bytes of the first GPU, asked of a process of its own, so that this one does not hold the GPU."""
    ask = "import torch; print(torch.cuda.mem_get_info()[1])"
    return int(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout)
