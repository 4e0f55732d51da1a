"""The log of requests: a line each, with what an operator looks for and nothing that a user said."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pagoda.model.catalog.entry_file import write_entry
from tests.services import WAIT_SECONDS, fake_model, process

ADMIN = "an-admin-key-of-the-test"


def home_with_a_model(home: Path) -> Path:
    """A home that knows a scripted model."""
    entries = home / "models" / "entries"
    entries.mkdir(parents=True)
    (entries / "fake-chat.yaml").write_text(write_entry(fake_model()), encoding="utf-8")
    return home


def ask(url: str, key: str, text: str) -> int:
    """One chat; its status."""
    body = json.dumps(
        {"model": "fake-chat", "messages": [{"role": "user", "content": text}], "temperature": 0}
    ).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "X-Request-Id": "asked-by-test"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + "/v1/chat/completions", body, headers)) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def served(home: Path, *flags: str, **environment: str) -> str:
    """What the log says of an answered, a repeated and a refused request, and a look at its health."""
    with process(home, *flags, environment={"PAGODA_ADMIN_KEY": ADMIN, **environment}) as (url, child):
        assert ask(url, ADMIN, "a private matter") == 200
        assert ask(url, ADMIN, "a private matter") == 200
        assert ask(url, "pk-wrong-secret", "a private matter") == 401
        with urllib.request.urlopen(url + "/health") as response:
            assert response.status == 200
        child.send_signal(signal.SIGTERM)
        child.wait(WAIT_SECONDS)
    return (home / "serve.log").read_text()


def told(log: str) -> list[dict[str, Any]]:
    """The lines of requests, of a log in JSON."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"] == "pagoda.access"]


def test_a_line_of_json_names_request_key_route_model_durations_tokens_and_cache(tmp_path: Path) -> None:
    log = served(home_with_a_model(tmp_path), PAGODA_LOG_FORMAT="json")
    first, second, refused = told(log)
    assert first["request_id"] == "asked-by-test"
    assert (first["route"], first["status"], first["model"]) == ("/v1/chat/completions", 200, "fake-chat")
    assert first["key_id"]
    assert first["team"]
    assert (first["cache"], first["attempts"], first["finish"]) == ("miss", 1, "stop")
    assert first["prompt_tokens"] > 0
    assert first["completion_tokens"] > 0
    assert 0 <= first["queue_seconds"] <= first["first_token_seconds"] <= first["seconds"]
    assert (second["cache"], second["attempts"], second["engine_seconds"]) == ("hit", 0, 0)
    assert (refused["status"], refused["key_id"]) == (401, None)
    assert "model" not in refused
    for secret in (ADMIN, "pk-wrong-secret", "a private matter"):
        assert secret not in log


def test_lines_for_people_are_short_and_errors_alone_can_be_asked_for(tmp_path: Path) -> None:
    text = served(home_with_a_model(tmp_path / "a"))
    lines = [line for line in text.splitlines() if " REQUEST " in line]
    assert [line.split(" REQUEST ")[1].split(" ")[:3] for line in lines] == [
        ["POST", "/v1/chat/completions", status] for status in ("200", "200", "401")
    ]
    assert "from the cache" in lines[1]
    assert "a private matter" not in text
    only = served(home_with_a_model(tmp_path / "b"), PAGODA_LOG_ACCESS="errors")
    assert [line.split(" ")[4] for line in only.splitlines() if " REQUEST " in line] == ["401"]
