"""One engine process: started, asked for its address, watched, ended. What to do about its end is the supervisor's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import orjson

from pagoda.core.errors import Unavailable
from pagoda.model.engines.contract import LaunchPlan

_LOG_TAIL = 2000
_NOT_FOR_ENGINES = ("PAGODA_ADMIN_KEY", "PAGODA_API_KEY", "PAGODA_STORAGE_URL")


class EngineProcess:
    """A child on loopback that ends when this process does (see ``pagoda.model.engines.lifeline``)."""

    def __init__(self, name: str, plan: LaunchPlan, log: Path) -> None:
        self.name = name
        self.url = ""
        self._plan = plan
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, seconds: float) -> str:
        """Launch, wait until ready, give the address. Raises ``Unavailable``, and then leaves nothing behind."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".previous.log"))
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._plan.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**_environment(), **self._plan.environment},
            )
        try:
            async with asyncio.timeout(seconds):
                report = await self._handshake(self._process)
        except TimeoutError:
            await self.stop()
            raise Unavailable(
                f"The engine of {self.name} was not ready within {seconds:g} s; its log is {self._log}."
            ) from None
        except BaseException:
            await self.stop()
            raise
        if not report:  # it has ended; a signal sent before asyncio has seen that would make its status 255
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._plan.stop_seconds):
                    await self._process.wait()
        if "url" not in report:
            await self.stop()
            if code := report.get("code"):  # the engine knows the reason, and it is not a guess of ours
                raise Unavailable(
                    f"{self.name} cannot be served: {report['error'].rstrip('.')}. The engine's log is {self._log}.",
                    code=code,
                    retryable=False,
                )
            raise Unavailable(self._explain(report.get("error", "")), retryable=False)
        self.url = report["url"]
        return self.url

    async def _handshake(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        """Send the configuration and read the report; an empty report means that the process ended."""
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("engine processes are started with pipes")
        with contextlib.suppress(ConnectionError):  # it ended at once; its end is noticed below, with its log
            process.stdin.write(orjson.dumps(dict(self._plan.config)) + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        report: dict[str, Any] = orjson.loads(line) if line else {}
        return report

    def _explain(self, reason: str) -> str:
        """Why it did not start, in a sentence that names the model file and the log."""
        path = self._plan.config.get("path")
        tail = self._log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").strip().splitlines()
        said = reason or (tail[-1] if tail else self._ending() or "it ended without a word")
        if path is None:
            return f"The engine of {self.name} did not start: {said}."
        return (
            f"The model file {path} of {self.name} could not be loaded ({said}); it may be broken or cut short: "
            f"pull or import it again. The engine's log is {self._log}."
        )

    async def wait(self) -> str:
        """Wait for its end and say how it came."""
        if self._process is None:
            return "it was never started"
        await self._process.wait()
        return self._ending()

    def _ending(self) -> str:
        """How it ended, once it has."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return ""
        return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"

    async def stop(self) -> None:
        """End it: its standard input closes, then SIGTERM, then SIGKILL. Safe to call at any time."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for send in (process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                send()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._plan.stop_seconds):
                    await process.wait()
                return


def _environment() -> dict[str, str]:
    """This process's, without the secrets that open Pagoda itself: a checkpoint may bring code of its own."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_FOR_ENGINES}
