"""``pagoda models load|unload|list`` beside a running service, and the same through one that has joined another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pagoda.model.catalog.entry_file import write_entry
from tests.services import fake_model, process

MODELS = (fake_model("chatty"), fake_model("sick", start_error="no such library"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    for model in MODELS:
        (entries / f"{model.id}.yaml").write_text(write_entry(model), encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(home: Path) -> Mapping[str, str]:
    return {"PAGODA_HOME": str(home), "PAGODA_DEFAULTS_CHAT": "chatty"}


def models(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pagoda", "models", *words],
        env={**os.environ, **environment},
        cwd=environment["PAGODA_HOME"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def row(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    shown = models(environment, "list", "--json")
    assert shown.returncode == 0, shown.stderr
    (found,) = (each for each in json.loads(shown.stdout) if each["id"] == name)
    return dict(found)


def test_models_are_loaded_listed_and_unloaded_by_command(home: Path, environment: Mapping[str, str]) -> None:
    alone = models(environment, "load", "chatty")
    assert (alone.returncode, "pagoda serve" in alone.stderr) == (1, True), "there is no service yet"
    with process(home, environment=environment) as (url, _):
        assert row(environment, "chatty")["state"] == "unloaded"
        loaded = models(environment, "load", "chatty", "--pin")
        assert (loaded.returncode, loaded.stdout) == (0, "chatty is ready.\n"), loaded.stderr
        assert loaded.stderr.splitlines() == ["chatty: loading", "chatty: ready"]
        about = row(environment, "chatty")
        assert (about["state"], about["service"]["pinned"]) == ("ready", True)
        shown = models(environment, "list").stdout
        assert "ready (pinned)" in shown
        assert "are set aside" in shown
        assert ask(url + "/api/v1/models")[1]["held"]["host"] > 0
        last = json.loads(models(environment, "load", "chatty", "--no-pin", "--keep-alive", "900", "--json").stdout)
        assert (last["state"], last["stage"]) == ("ready", "done")
        assert row(environment, "chatty")["service"]["pinned"] is False
        gone = models(environment, "unload", "chatty")
        assert (gone.returncode, gone.stdout) == (0, "chatty has left memory.\n"), gone.stderr
        assert row(environment, "chatty")["state"] == "unloaded"
        assert ask(url + "/api/v1/models")[1]["held"]["host"] == 0


def test_a_command_that_fails_says_why_in_a_sentence(home: Path, environment: Mapping[str, str]) -> None:
    with process(home, environment=environment):
        for words, said in (
            (("load", "sick"), "no such library"),
            (("load", "gpt-9"), "There is no model 'gpt-9'"),
            (("unload", "chatty"), "chatty is not in memory"),
        ):
            failed = models(environment, *words)
            assert (failed.returncode, failed.stdout) == (1, "")
            assert said in failed.stderr.splitlines()[-1]
            assert "Traceback" not in failed.stderr


def test_a_service_that_has_joined_steers_the_one_that_owns_the_engines(
    home: Path, environment: Mapping[str, str]
) -> None:
    with (
        process(home, environment=environment) as (owner, _),
        process(home / "second", environment=environment) as (joined, _),
    ):
        status, step = ask(joined + "/api/v1/models/chatty/load", {"pinned": True})
        assert (status, step["state"]) == (200, "ready")
        here, there = ask(owner + "/api/v1/models")[1], ask(joined + "/api/v1/models")[1]
        assert here["budget"] == there["budget"]
        for answer in (here, there):
            (chatty,) = (each for each in answer["data"] if each["id"] == "chatty")
            assert (chatty["state"], chatty["pinned"]) == ("ready", True)
        assert ask(joined + "/api/v1/models/events")[0] == 409, "its own engines are none"
        assert ask(joined + "/api/v1/models/sick/load", {})[0] == 503
        assert ask(joined + "/api/v1/models/chatty/unload", {})[0] == 200
        (chatty,) = (each for each in ask(owner + "/api/v1/models")[1]["data"] if each["id"] == "chatty")
        assert chatty["state"] == "unloaded"
        status, answer = ask(joined + "/api/v1/models/chatty/unload", {})
        assert status in (200, 404), answer
