"""``pagoda models`` as a user types it, in a process of its own, against a home of its own."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def pagoda(tmp_path: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAGODA_")}
    environ = {**kept, "PAGODA_HOME": str(tmp_path / "home"), "HOME": str(tmp_path), "PIP_NO_INDEX": "1"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [sys.executable, "-m", "pagoda", "models", *words]
        return subprocess.run(
            command, env={**environ, **more}, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )

    return run


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """The smallest whole GGUF file: a header that names an architecture."""
    key, value = b"general.architecture", b"llama"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
    return path


def test_list_shows_the_builtin_models_and_their_state(pagoda: Run) -> None:
    shown = pagoda("list")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["model", "task", "engine", "state", "size", "memory", "context", "from", "aliases"]
    assert lines[1].split()[:4] == ["smollm2-135m-instruct", "chat", "llamacpp", "absent"]
    rows = json.loads(pagoda("list", "--json", PAGODA_MODELS_ALIASES="gpt-4o-mini=smollm2-135m-instruct").stdout)
    assert [row["id"] for row in rows] == [
        "smollm2-135m-instruct",
        "smollm2-135m-instruct-hf",
        "all-minilm-l6-v2",
        "multilingual-e5-small",
    ]
    assert rows[0]["aliases"] == ["gpt-4o-mini"]


def test_import_show_and_remove(pagoda: Run, gguf: Path) -> None:
    taken = pagoda("import", "mine", str(gguf), "--json")
    assert taken.returncode == 0, taken.stderr
    about = json.loads(pagoda("show", "mine", "--json").stdout)
    assert (about["state"], about["path"]) == ("present", json.loads(taken.stdout)["path"])
    assert Path(about["path"]).read_bytes() == gguf.read_bytes()
    assert "state" in pagoda("show", "mine").stdout
    assert "mine is ready" in pagoda("pull", "mine").stdout
    assert pagoda("remove", "mine").returncode == 0
    gone = pagoda("show", "mine")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.startswith("pagoda: There is no model 'mine'; there are smollm2-135m-instruct,")


def test_add_a_remote_model(pagoda: Run) -> None:
    words = ("add", "llama", "--url", "http://127.0.0.1:11434/v1/", "--model", "llama3.2", "--key-env", "OLLAMA_KEY")
    added = pagoda(*words)
    assert (added.returncode, added.stderr) == (0, "")
    about = json.loads(pagoda("show", "llama", "--json").stdout)
    assert about["source"] == {
        "kind": "remote",
        "url": "http://127.0.0.1:11434/v1",
        "model": "llama3.2",
        "key_env": "OLLAMA_KEY",
    }
    assert about["state"] == "elsewhere"
    again = pagoda(*words)
    assert again.returncode == 1
    assert "already a model llama" in again.stderr
    assert pagoda("add", "../x", "--url", "http://x/v1").returncode == 2


def test_pull_without_network_is_one_sentence(pagoda: Run) -> None:
    refused = pagoda("pull", "--builtin", "--set", "models.offline=true")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.splitlines()[-1].startswith("pagoda: The model smollm2-135m-instruct is not on this machine")


def test_wrong_use_is_told_apart_from_failure(pagoda: Run) -> None:
    assert pagoda("pull").returncode == 2
    assert pagoda("frobnicate").returncode == 2
    assert pagoda("list", "--memory", "-3").returncode == 2
    assert pagoda("pull", "no-such-model").returncode == 1


def test_suggestions_fit_the_memory_given(pagoda: Run) -> None:
    found = json.loads(pagoda("suggest", "--memory", "8", "--json").stdout)
    assert found["memory"] == 8_000_000_000
    assert found["models"]
    assert all(model["memory"] <= found["memory"] for model in found["models"])
    assert pagoda("list", "--suggest", "--memory", "8").stdout == pagoda("suggest", "--memory", "8").stdout


@pytest.mark.parametrize("command", ["list", "suggest", "show", "pull", "import", "add", "remove"])
def test_every_command_has_help_with_an_example(pagoda: Run, command: str) -> None:
    shown = pagoda(command, "--help")
    assert shown.returncode == 0
    assert f"example:\n  pagoda models {command} " in shown.stdout.replace(f"{command}\n", f"{command} \n")
    assert "--json" in shown.stdout
