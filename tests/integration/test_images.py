"""The Dockerfiles, without Docker: what they run is run here, in a clean virtual environment, from what they copy."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from tests.deployed import ADMIN_KEY, ROOT
from tests.services import free_port

MODEL = "smollm2-135m-instruct"


@dataclass
class Image:
    """The instructions of a Dockerfile that say what runs."""

    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    copies: list[tuple[list[str], str]] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    user: str = ""
    volumes: list[str] = field(default_factory=list)


def read_image(name: str) -> Image:
    text = (ROOT / "deploy" / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    image = Image()
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        match word:
            case "ENV":
                image.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "ARG":
                key, _, value = rest.partition("=")
                image.arguments[key] = shlex.split(value)[0] if shlex.split(value) else ""
            case "COPY":
                *sources, target = rest.split()
                image.copies.append((sources, target))
            case "RUN":
                image.runs.append(rest)
            case "HEALTHCHECK":
                image.health = orjson.loads(rest.partition("CMD ")[2])
            case "CMD":
                image.command = orjson.loads(rest)
            case "USER":
                image.user = rest
            case "VOLUME":
                image.volumes = orjson.loads(rest)
            case _:
                assert word in ("FROM", "WORKDIR", "EXPOSE", "STOPSIGNAL"), f"the test does not know {word}"
    return image


@pytest.mark.real_model
@pytest.mark.timeout(600)
def test_the_cpu_image_runs_from_what_it_copies(tmp_path: Path, models_directory: Path) -> None:
    image = read_image("cpu")
    place, venv, port = tmp_path / "opt", tmp_path / "venv", free_port()
    for sources, target in image.copies:
        for source in sources:
            _copy(ROOT / source, place / target / ("" if target.endswith("src") else source))
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG") or name.startswith("PIP_")}
    environment = {
        **kept,
        **image.environment,
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "PAGODA_HOME": str(tmp_path / "home"),
        "PAGODA_MODELS_DIRECTORY": str(models_directory),  # where it lies already, so that nothing is fetched
        "HF_HOME": str(tmp_path / "huggingface"),
        "PAGODA_SERVER_PORT": str(port),
        "PAGODA_SERVER_HOST": "127.0.0.1",
        "PAGODA_SERVER_DRAIN_GRACE_SECONDS": "0",
        "PAGODA_ADMIN_KEY": ADMIN_KEY,
    }
    for run in image.runs:
        done = subprocess.run(
            ["sh", "-c", run],
            cwd=place,
            env={**environment, "MODELS": MODEL},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{run}\n{done.stdout}\n{done.stderr}"
    child = subprocess.Popen(image.command, cwd=tmp_path, env=environment)
    try:
        _wait_until_healthy(image.health, environment, child)
        body = orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            body,
            {"Content-Type": "application/json", "Authorization": f"Bearer {ADMIN_KEY}"},
        )
        with urllib.request.urlopen(asked, timeout=60) as response:
            assert orjson.loads(response.read())["usage"]["completion_tokens"] > 0
    finally:
        child.terminate()
        assert child.wait(60) == 0
    assert subprocess.run(image.health, env=environment, capture_output=True, check=False).returncode != 0


def _wait_until_healthy(health: list[str], environment: dict[str, str], child: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while subprocess.run(health, env=environment, capture_output=True, check=False).returncode != 0:
        assert child.poll() is None, "the service ended"
        assert time.monotonic() < end, "it did not become healthy"


def _copy(source: Path, target: Path) -> None:
    """As the build context is: nothing that ``.dockerignore`` leaves out."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    top = source.relative_to(ROOT).parts[0]
    assert "*" in ignored
    assert f"!{top}" in ignored, f"{top} is copied but not sent"
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info"))
    else:
        shutil.copy(source, target)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_images_hold_no_secret_and_run_as_nobody_in_particular(name: str) -> None:
    image = read_image(name)
    assert image.user == "10001:0"
    assert set(image.volumes) == {image.environment["PAGODA_HOME"], image.environment["PAGODA_MODELS_DIRECTORY"]}
    assert image.command == ["pagoda", "serve"]
    assert not [key for key in (*image.environment, *image.arguments) if re.search("KEY|TOKEN|PASSWORD|SECRET", key)]
    assert any("-c constraints.txt ." in run for run in image.runs)
    assert image.arguments == {"MODELS": ""}
    for run in image.runs:
        assert subprocess.run(["sh", "-n", "-c", run], capture_output=True, check=False).returncode == 0, run


def test_the_gpu_image_installs_extras_that_there_are_and_differs_in_nothing_else() -> None:
    cpu, cuda = read_image("cpu"), read_image("cuda")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"'\.\[(\w+)\]'", " ".join(cuda.runs))
    assert extras == ["vllm"]
    assert set(extras) <= set(project["optional-dependencies"])
    assert [run for run in cuda.runs if "apt-get" not in run and "[vllm]" not in run] == cpu.runs
    assert (cuda.health, cuda.copies) == (cpu.health, cpu.copies)
    assert cpu.environment.items() <= cuda.environment.items()
