"""``pagoda cache`` and the cache of a service that others have joined."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pagoda.model.catalog.entry_file import write_entry
from tests.services import fake_model, process


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    for name in ("chatty", "other"):
        (entries / f"{name}.yaml").write_text(write_entry(fake_model(name)), encoding="utf-8")
    for key, value in {"PAGODA_HOME": str(tmp_path), "PAGODA_DEFAULTS_CHAT": "chatty"}.items():
        monkeypatch.setenv(key, value)
    return tmp_path


def cache(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagoda", "cache", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=home, timeout=60, check=False)


def ask(url: str, text: str, model: str = "chatty") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return str(response.headers["X-Cache"])


def test_show_and_purge_from_the_command_line_and_through_a_joined_service(home: Path) -> None:
    with process(home) as (url, _), process(home / "second", environment={"PAGODA_HOME": str(home)}) as (joined, _):
        assert [ask(url, "a"), ask(joined, "a"), ask(joined, "b"), ask(url, "a", "other")] == [
            "miss",
            "hit",
            "miss",
            "miss",
        ]
        state = json.loads(cache(home, "show", "--json").stdout)
        assert (state["kind"], state["entries"]) == ("embedded", 3)
        assert cache(home, "show").stdout.startswith("3 answers, ")
        assert cache(home, "purge", "--model", "other", "--tenant", "nobody").stdout.startswith("Forgot 0 answers")
        assert json.loads(cache(home, "purge", "--model", "other", "--json").stdout)["entries"] == 1
        with urllib.request.urlopen(joined + "/api/v1/cache") as response:
            assert json.load(response)["entries"] == 2
        delete = urllib.request.Request(joined + "/api/v1/cache?tenant=local", method="DELETE")
        with urllib.request.urlopen(delete) as response:
            assert json.load(response)["entries"] == 2
        assert ask(joined, "a") == "miss"
        assert cache(home, "purge", "--all").stdout.startswith("Forgot 1 answers")
        missing = cache(home, "purge", "--model", "nothing")
        assert missing.returncode == 1
        assert "There is no model 'nothing'" in missing.stderr


@pytest.mark.parametrize("arguments", [(), ("--all", "--model", "chatty")])
def test_a_purge_has_to_say_what(home: Path, arguments: tuple[str, ...]) -> None:
    done = cache(home, "purge", *arguments)
    assert done.returncode == 2
    assert "Name what to forget" in done.stderr
