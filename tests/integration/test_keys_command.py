"""``pagoda keys`` and services as processes: a running service is told at once, and no key is needed where none is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import pagoda
from pagoda.core.errors import PagodaError
from pagoda.model.catalog.entry_file import write_entry
from tests.services import fake_model, process

CHAT = "fake-chat"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a scripted model, known as the default."""
    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    (entries / f"{CHAT}.yaml").write_text(write_entry(fake_model(CHAT)), encoding="utf-8")
    return tmp_path


def environment(home: Path, **more: str) -> dict[str, str]:
    return {"PAGODA_HOME": str(home), "PAGODA_DEFAULTS_CHAT": CHAT, "PAGODA_KEYS_REFRESH_SECONDS": "3600", **more}


def keys(home: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """``pagoda keys``; its exit status is checked."""
    done = subprocess.run(
        [sys.executable, "-m", "pagoda", "keys", *words],
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, **environment(home)},
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done


def keys_json(home: Path, *words: str) -> Any:
    return json.loads(keys(home, *words, "--json").stdout)


def ask(url: str, secret: str = "") -> int:
    request = urllib.request.Request(
        url + "/v1/models", headers={"Authorization": f"Bearer {secret}"} if secret else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_running_service_notices_every_change_at_once(home: Path) -> None:
    with process(home, environment=environment(home)) as (url, _):
        assert ask(url) == 200
        admin = keys(home, "create", "--name", "root", "--scopes", "admin").stdout.strip()
        assert ask(url) == 401
        app = keys_json(home, "create", "--name", "app", "--expires", "30d", "--rpm", "60", "--budget", "2.5")
        assert [ask(url, secret) for secret in (admin, app["secret"])] == [200, 200]
        fresh = keys_json(home, "rotate", "app")
        assert [ask(url, secret) for secret in (app["secret"], fresh["secret"])] == [401, 200]
        graced = keys_json(home, "rotate", "app", "--grace", "1h")
        assert [ask(url, secret) for secret in (fresh["secret"], graced["secret"])] == [200, 200]
        keys(home, "revoke", "app")
        assert [ask(url, secret) for secret in (fresh["secret"], graced["secret"])] == [401, 401]
        found = keys(home, "reset-admin").stdout.strip()
        assert [ask(url, secret) for secret in (admin, found)] == [401, 200]
        keys(home, "revoke", "admin")
        assert ask(url) == 200, "no admin key is left"


def test_keys_are_listed_with_their_limits_and_never_their_secrets(home: Path) -> None:
    made = keys_json(
        home, "create", "--name", "app", "--team", "blue", "--models", CHAT, "--scopes", "inference,monitor",
        "--tpm", "1000", "--concurrent", "4", "--budget", "2.50", "--budget-tokens", "9",
        "--period", "day", "--priority", "10",
    )  # fmt: skip
    keys(home, "team", "blue", "--rpm", "600")
    (row,) = keys_json(home, "list")
    assert row["id"] == made["id"]
    assert (row["team"], row["models"], row["scopes"]) == ("blue", [CHAT], ["inference", "monitor"])
    assert (row["priority"], row["expires"], row["last_used"]) == (10, None, None)
    assert row["limits"] == {
        "requests_per_minute": None,
        "tokens_per_minute": 1000,
        "concurrent": 4,
        "budget_tokens": 9,
        "budget": 2.5,
        "period": "day",
    }
    assert row["team_limits"]["requests_per_minute"] == 600
    assert keys_json(home, "team", "blue")["limits"]["requests_per_minute"] == 600
    assert keys_json(home, "team", "blue", "--no-limits")["limits"]["requests_per_minute"] is None
    shown = keys(home, "list").stdout
    assert "app  team blue" in shown
    assert "1000 tokens a minute; 4 at once" in shown
    assert "is a key 'app' already" in keys(home, "create", "--name", "app", status=1).stderr
    assert "There is no model 'nothing'" in keys(home, "create", "--name", "b", "--models", "nothing", status=1).stderr
    assert "There is no key 'gone'" in keys(home, "revoke", "gone", status=1).stderr
    keys(home, "revoke", "app")
    assert keys_json(home, "list") == []
    assert [row["name"] for row in keys_json(home, "list", "--revoked")] == ["app"]
    lines = keys_json(home, "audit")
    assert [line["action"] for line in lines] == ["keys.revoke", "keys.team", "keys.team", "keys.create"]
    assert {line["who"] for line in lines} == {"local"}
    everything = (
        shown
        + keys(home, "audit").stdout
        + "".join(path.read_bytes().decode("latin-1") for path in home.glob("pagoda.db*"))
    )
    assert made["secret"][7:] not in everything


def test_off_loopback_an_admin_key_is_made_and_printed_once(home: Path) -> None:
    with process(home, "--host", "0.0.0.0", environment=environment(home)) as (url, _):
        assert ask(url) == 401
        said = (home / "serve.log").read_text()
        secret = re.findall(r"Admin key, shown this once: (pk-\S+)", said)
        assert len(secret) == 1
        assert ask(url, secret[0]) == 200
    with process(home, "--host", "0.0.0.0", environment=environment(home)) as (url, _):
        assert "pk-" not in (home / "serve.log").read_text()
        assert [ask(url), ask(url, secret[0])] == [401, 200]


def test_the_environments_admin_key_opens_and_is_kept_nowhere(home: Path) -> None:
    secret = "a-secret-of-the-operators"
    with process(home, "--host", "0.0.0.0", environment=environment(home, PAGODA_ADMIN_KEY=secret)) as (url, _):
        assert [ask(url), ask(url, secret), ask(url, secret + "x")] == [401, 200, 401]
        assert not (home / "pagoda.db").exists()
        assert secret not in (home / "serve.log").read_text()


def test_the_official_clients_and_ours_come_in_with_a_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAGODA_API_KEY", raising=False)
    with process(home, environment=environment(home, PAGODA_ADMIN_KEY="a-secret-of-the-operators")) as (url, _):
        secret = keys(home, "create", "--name", "app").stdout.strip()
        messages: Any = [{"role": "user", "content": "hello"}]
        with openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0) as client:
            assert client.chat.completions.create(model=CHAT, messages=messages).choices[0].message.content
        with anthropic.Anthropic(base_url=url, api_key=secret, max_retries=0) as claude:
            assert claude.messages.create(model=CHAT, messages=messages, max_tokens=9).content
        with (
            openai.OpenAI(base_url=url + "/v1", api_key="pk-wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError, match="not known here"),
        ):
            client.models.list()
        with (
            anthropic.Anthropic(base_url=url, api_key="pk-wrong", max_retries=0) as claude,
            pytest.raises(anthropic.AuthenticationError, match="not known here"),
        ):
            claude.messages.create(model=CHAT, messages=messages, max_tokens=9)
        with pagoda.connect(url, key=secret) as ours:
            assert ours.chat("hello", model=CHAT).text
        with pagoda.connect(url) as ours, pytest.raises(PagodaError):
            ours.chat("hello", model=CHAT)
        monkeypatch.setenv("PAGODA_API_KEY", secret)
        with pagoda.connect(url) as ours:
            assert ours.chat("hello", model=CHAT).text
        talk = [sys.executable, "-m", "pagoda", "chat", "--url", url, "-m", "hello"]
        far = {**os.environ, "PAGODA_HOME": str(home / "other")}
        assert subprocess.run(talk, env=far, cwd=home, timeout=60, check=False, capture_output=True).returncode == 0
        # This machine's own commands join with the internal key, whatever keys there are.
        near = [sys.executable, "-m", "pagoda", "chat", "-m", "hello"]
        own = {name: value for name, value in os.environ.items() if name != "PAGODA_API_KEY"} | environment(home)
        assert subprocess.run(near, env=own, cwd=home, timeout=60, check=False, capture_output=True).returncode == 0


@pytest.mark.timeout(300)
def test_a_revoked_key_stops_its_batch(home: Path) -> None:
    slow = fake_model("slow-chat", token_seconds=0.1, text="one two three", parallel=4)
    (home / "models" / "entries" / "slow-chat.yaml").write_text(write_entry(slow), encoding="utf-8")
    lines = "".join(
        json.dumps(
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "slow-chat", "messages": [{"role": "user", "content": f"hello {number}"}]},
            }
        )
        + "\n"
        for number in range(5000)
    )
    with process(home, environment=environment(home, PAGODA_ADMIN_KEY="a-secret-of-the-operators")) as (url, _):
        app, mate = (keys(home, "create", "--name", name).stdout.strip() for name in ("app", "mate"))
        with openai.OpenAI(base_url=url + "/v1", api_key=app, max_retries=0) as client:
            file = client.files.create(file=("in.jsonl", lines.encode()), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        with openai.OpenAI(base_url=url + "/v1", api_key=mate, max_retries=0) as client:
            batch = _until(client, batch.id, lambda found: found.request_counts.completed > 0)
            keys(home, "revoke", "app")
            batch = _until(client, batch.id, lambda found: found.status == "failed")
            assert batch.request_counts is not None
            assert 0 < batch.request_counts.completed < 5000
            assert batch.request_counts.failed == 0
            assert batch.errors is not None
            assert "revoked" in str(batch.errors.data)


def _until(client: openai.OpenAI, batch_id: str, holds: Any) -> Any:
    end = time.monotonic() + 60
    while not holds(found := client.batches.retrieve(batch_id)):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found
