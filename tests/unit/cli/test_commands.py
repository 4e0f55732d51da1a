"""`version`, `config show` and `doctor` as a user or a script types them, each in a home of its own."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import pagoda
from pagoda.cli.main import main
from pagoda.core.configuration import options
from pagoda.service.presence import Notice, Presence

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command's exit status, output and errors, in an empty home and directory."""
    import os

    for name in os.environ:
        if name.startswith(("PAGODA_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PAGODA_SERVER_PORT", "0")
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        status = main(words)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_version_for_machines_and_people(run: Run) -> None:
    status, shown, _ = run("version", "--json")
    found = json.loads(shown)
    assert status == 0
    assert found["pagoda"] == pagoda.__version__
    assert found["python"] == platform.python_version()
    assert found["xllamacpp"] == metadata.version("xllamacpp")
    status, shown, _ = run("version")
    assert status == 0
    assert dict(line.split(maxsplit=1) for line in shown.splitlines())["pagoda"] == pagoda.__version__


def test_version_of_what_is_not_installed_is_null(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    assert json.loads(run("version", "--json")[1])["torch"] is None
    assert "(not installed)" in run("version")[1]


def test_config_show_gives_every_setting_its_value_and_origin(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pagoda.toml").write_text(
        "[log]\nlevel = 'debug'\n[models.aliases]\n'gpt-4o-mini' = 'mine'\n", encoding="utf-8"
    )
    monkeypatch.setenv("PAGODA_ENGINES_PARALLEL", "7")
    status, shown, _ = run("config", "show", "--json", "--set", "engines.threads=3")
    assert status == 0
    rows: dict[str, Any] = {row["key"]: row for row in json.loads(shown)}
    assert list(rows) == ["home", *(option.key for option in options())]
    said = {key: (row["value"], row["origin"]) for key, row in rows.items()}
    file = str(tmp_path / "pagoda.toml")
    assert said["home"] == (str(tmp_path / "home"), "environment PAGODA_HOME")
    assert said["log.level"] == ("debug", file)
    assert said["models.aliases"] == ({"gpt-4o-mini": "mine"}, file)
    assert said["engines.parallel"] == (7, "environment PAGODA_ENGINES_PARALLEL")
    assert said["engines.threads"] == (3, "command line")
    assert said["defaults.chat"] == ("smollm2-135m-instruct", "default")
    assert all(row["doc"] for row in rows.values())


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_show_masks_secrets(run: Run, form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_MODELS_HUB_TOKEN", "hf_hidden")
    monkeypatch.setenv("PAGODA_STORAGE_URL", "postgresql://user:hidden@host/records")
    status, shown, errors = run("config", "show", *form)
    assert status == 0
    assert "hidden" not in shown + errors
    assert "***" in shown
    assert "environment PAGODA_MODELS_HUB_TOKEN" in shown


def test_wrong_settings_are_all_told_with_status_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_SERVER_PORT", "many")
    monkeypatch.setenv("PAGODA_LOG_LEVEL", "loud")
    status, shown, errors = run("config", "show")
    assert (status, shown) == (2, "")
    assert errors.startswith("pagoda: 2 settings are wrong:")
    assert "server.port = 'many'" in errors
    assert "log.level = 'loud'" in errors


def test_doctor_in_an_empty_home_says_what_to_type(run: Run) -> None:
    status, shown, _ = run("doctor")
    assert status == 1
    for name in ("smollm2-135m-instruct", "all-minilm-l6-v2", "multilingual-e5-small"):
        assert f"MISSING  model {name}: absent" in shown
        assert f"Type: pagoda models pull {name}" in shown
    assert "Type: pagoda serve" in shown


def test_doctor_for_machines(run: Run) -> None:
    status, shown, _ = run("doctor", "--json")
    findings = json.loads(shown)
    assert status == 1
    assert {finding["verdict"] for finding in findings} >= {"ok", "missing", "optional"}
    assert all(finding["advice"] for finding in findings if finding["verdict"] == "missing")


@pytest.mark.real_model
def test_doctor_is_content_when_nothing_is_missing(
    run: Run, models_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGODA_MODELS_DIRECTORY", str(models_directory))
    status, shown, _ = run("doctor")
    assert status == 0, shown
    assert "MISSING" not in shown
    assert "model smollm2-135m-instruct: present" in shown


def test_doctor_sees_a_running_service_and_a_taken_port(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("PAGODA_SERVER_PORT", str(port))
        shown = run("doctor")[1]
        assert f"MISSING  port {port} is used by another program" in shown
        assert f"Type: pagoda serve --port {port + 1}" in shown
    presence = Presence(tmp_path / "home")
    assert presence.claim()
    try:
        presence.publish(Notice(url="http://127.0.0.1:1", key="secret", pid=4242, embedded=False))
        shown = run("doctor")[1]
    finally:
        presence.release()
    assert "service runs at http://127.0.0.1:1 (process 4242)" in shown
    assert "secret" not in shown
