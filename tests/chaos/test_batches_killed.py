"""Batches on the real engine whose processes are killed in the middle: every line is answered, none twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from pagoda.core.runs import RunRegistry, Runs
from pagoda.core.settings import Settings
from tests.services import process

CHAT = "smollm2-135m-instruct"
LINES = 40
WAIT_SECONDS = 90.0

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(240)]


def requests(count: int = LINES) -> str:
    rows = []
    for number in range(count):
        messages = [{"role": "user", "content": f"Tell me a story about the number {number}."}]
        body: dict[str, Any] = {"model": CHAT, "messages": messages, "max_tokens": 12}
        if number % 10 == 9:
            body["temperature"] = 9  # refused: failed lines stand beside good ones
        url = "/v1/chat/completions"
        rows.append(json.dumps({"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}))
    return "\n".join(rows) + "\n"


def custom_ids(*paths: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for path in paths if path.exists() for line in path.read_text().splitlines()]


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


class Desk:
    """A folder with a batch to be done by ``pagoda batch run``, and its home."""

    def __init__(self, folder: Path, models_directory: Path) -> None:
        self.home = folder / "home"
        self.out, self.errors = folder / "out.jsonl", folder / "out.errors.jsonl"
        self.runs = Runs(Settings(home=self.home), RunRegistry({"batch": "x:y"}))
        self.environment = {
            **os.environ,
            "PAGODA_HOME": str(self.home),
            "PAGODA_MODELS_DIRECTORY": str(models_directory),
            "PAGODA_ENGINES_RETRY_SECONDS": "0.05",
        }
        (folder / "in.jsonl").write_text(requests())
        self.folder = folder

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pagoda", "batch", "run", "in.jsonl", "--out", "out.jsonl"]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def answered(self) -> int:
        return self.out.read_bytes().count(b"\n") if self.out.exists() else 0

    def run_pid(self) -> int:
        run = self.runs.find(kind="batch")[0]
        assert run.process is not None
        return run.process.pid

    def engines(self) -> list[psutil.Process]:
        """The engine children of this home's service."""
        found = []
        for candidate in psutil.process_iter():
            try:
                if "llamacpp_child" in " ".join(candidate.cmdline()) and self._is_ours(candidate):
                    found.append(candidate)
            except psutil.Error:
                continue
        return found

    def _is_ours(self, candidate: psutil.Process) -> bool:
        return candidate.environ().get("PAGODA_HOME") == str(self.home)

    def finish(self) -> None:
        """Let the same command come to its end, and check what it left."""
        child = self.start()
        said, _ = child.communicate(timeout=WAIT_SECONDS)
        assert child.returncode == 1, said.decode()  # lines failed, and it says so
        assert f"{LINES // 10} failed" in said.decode()
        assert sorted(custom_ids(self.out, self.errors)) == sorted(f"r{number}" for number in range(LINES))
        assert len(custom_ids(self.errors)) == LINES // 10


@pytest.fixture
def desk(tmp_path: Path, models_directory: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path, models_directory)
    yield opened
    for run in opened.runs.find(kind="batch"):
        if not run.ended:
            opened.runs.cancel(run.id, at_once=True)
    wait(lambda: not opened.engines())  # the service leaves with its last guest, and its engines with it


def test_a_killed_batch_goes_on_by_the_same_command(desk: Desk) -> None:
    child = desk.start()
    wait(lambda: desk.answered() >= 5)
    os.kill(desk.run_pid(), signal.SIGKILL)
    child.communicate(timeout=WAIT_SECONDS)
    assert child.returncode == 1
    before = desk.answered()
    assert 5 <= before < LINES - LINES // 10
    first = custom_ids(desk.out)
    desk.finish()
    assert custom_ids(desk.out)[: len(first)] == first, "what was answered is kept as it was"
    assert desk.runs.find(kind="batch")[0].attempt == 2


def test_a_command_that_is_killed_leaves_its_batch_at_work(desk: Desk) -> None:
    child = desk.start()
    wait(lambda: desk.answered() >= 2)
    child.kill()
    child.communicate()
    desk.finish()
    assert [run.attempt for run in desk.runs.find(kind="batch")] == [1]


def test_a_torn_line_is_answered_again(desk: Desk) -> None:
    child = desk.start()
    wait(lambda: desk.answered() >= 5)
    os.kill(desk.run_pid(), signal.SIGKILL)
    child.communicate(timeout=WAIT_SECONDS)
    with desk.out.open("r+b") as file:
        file.truncate(desk.out.stat().st_size - 7)
    desk.finish()


def test_an_engine_killed_in_the_middle_costs_no_line(desk: Desk) -> None:
    child = desk.start()
    for threshold in (3, 12):
        wait(lambda at=threshold: desk.answered() >= at)  # type: ignore[misc]
        (engine,) = desk.engines()
        engine.kill()
        wait(lambda old=engine: old not in desk.engines())  # type: ignore[misc]
    said, _ = child.communicate(timeout=WAIT_SECONDS)
    assert child.returncode == 1, said.decode()
    assert sorted(custom_ids(desk.out, desk.errors)) == sorted(f"r{number}" for number in range(LINES))
    assert len(custom_ids(desk.errors)) == LINES // 10, "an engine's death is no fault of a line"
    desk.finish()


async def test_a_batch_over_http_outlives_its_process_and_its_service(tmp_path: Path, models_directory: Path) -> None:
    home = tmp_path / "home"
    runs = Runs(Settings(home=home), RunRegistry({"batch": "x:y"}))
    environment = {"PAGODA_MODELS_DIRECTORY": str(models_directory)}

    def kill_run() -> None:
        pid = runs.find(kind="batch")[0].process
        assert pid is not None
        os.kill(pid.pid, signal.SIGKILL)

    async def completed(client: openai.AsyncOpenAI, batch_id: str, least: int, *, ended: bool = False) -> Any:
        end = time.monotonic() + WAIT_SECONDS
        while True:
            batch = await client.batches.retrieve(batch_id)
            assert batch.status not in ("failed", "expired", "cancelled"), batch
            if (batch.status == "completed") if ended else batch.request_counts.completed >= least:  # type: ignore[union-attr]
                return batch
            assert time.monotonic() < end, batch
            await asyncio.sleep(0.05)

    with process(home, environment=environment) as (url, child):
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="none") as client:
            file = await client.files.create(file=("in.jsonl", requests().encode()), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            await completed(client, batch.id, 3)
            kill_run()
            await completed(client, batch.id, 10)  # whoever looks at it resumes it
            kill_run()
        child.send_signal(signal.SIGTERM)
        child.wait(WAIT_SECONDS)
    with process(home, environment=environment) as (url, child):  # and so does a service that starts
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="none") as client:
            batch = await completed(client, batch.id, 0, ended=True)
            ids = []
            for file_id in (batch.output_file_id, batch.error_file_id):
                assert file_id is not None
                text = (await client.files.content(file_id)).text
                ids += [json.loads(line)["custom_id"] for line in text.splitlines()]
        assert sorted(ids) == sorted(f"r{number}" for number in range(LINES))
        assert runs.find(kind="batch")[0].attempt == 3
