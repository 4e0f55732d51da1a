"""Several processes of one home show one set of metrics, whichever of them is scraped."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from pathlib import Path

from pagoda.model.catalog.entry_file import write_entry
from tests.services import WAIT_SECONDS, fake_model, process


def ask(url: str) -> None:
    """One chat."""
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "temperature": 1}).encode()
    request = urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


def counted(url: str, name: str) -> float:
    """The sum of a metric's samples."""
    with urllib.request.urlopen(url + "/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


CHATS = 'nlp_requests_total{endpoint="/v1/chat/completions"'


def test_each_process_shows_what_all_have_counted_and_an_end_takes_nothing_back(tmp_path: Path) -> None:
    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    (entries / "fake-chat.yaml").write_text(write_entry(fake_model()), encoding="utf-8")
    environment = {"PAGODA_HOME": str(tmp_path), "PAGODA_DEFAULTS_CHAT": "fake-chat"}
    with (
        process(tmp_path / "a", environment=environment) as (owner, _),
        process(tmp_path / "b", environment=environment) as (joined, child),
    ):
        ask(owner)
        ask(joined)
        ask(joined)
        assert counted(joined, CHATS) == 3
        assert counted(owner, CHATS) == 3
        assert counted(owner, "llm_requests_total{") == 3
        assert counted(owner, "pagoda_processes ") == 2
        child.send_signal(signal.SIGTERM)
        child.wait(WAIT_SECONDS)
        end = time.monotonic() + WAIT_SECONDS
        while counted(owner, "pagoda_processes ") != 1:
            assert time.monotonic() < end, "the process that left is still counted"
            time.sleep(0.05)
        assert counted(owner, CHATS) == 3
