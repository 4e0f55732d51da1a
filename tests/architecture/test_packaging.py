"""The serving install, the pinned versions and the make targets that people and CI share."""

from __future__ import annotations

import re
import subprocess
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.architecture.source import ROOT

TRAINING = {"torch", "transformers", "sentence-transformers", "peft", "trl", "datasets", "accelerate", "vllm", "ray"}


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def wanted(extra: str = "") -> list[Requirement]:
    listed = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    return [Requirement(line) for line in listed]


def test_the_serving_install_needs_no_torch() -> None:
    assert {canonicalize_name(item.name) for item in wanted()} & TRAINING == set()


@pytest.mark.parametrize("extra", ["", "train", "dev", "plots"])
def test_every_requirement_is_pinned_within_its_bounds(extra: str) -> None:
    for item in wanted(extra):
        version = pins().get(canonicalize_name(item.name))
        assert version is not None, f"{item.name} is missing in constraints.txt"
        assert item.specifier.contains(Version(version)), f"{item} is pinned to {version}"


def test_pins_are_exact_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert pins()["torch"] == "2.13.0"


@pytest.mark.requires("make")
@pytest.mark.parametrize("target", ["install", "serve", "test", "check", "bench"])
def test_make_knows_its_targets_and_lists_them(target: str) -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20).stdout
    assert f"make {target} " in listed
    planned = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    assert ".venv/bin/" in planned.stdout


@pytest.mark.requires("make")
def test_make_serve_takes_a_port() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "serve", "PORT=9123"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    assert "pagoda serve --port 9123" in planned.stdout


def test_ci_runs_readmes_words() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make check && make test" in script
    assert "make check && make test" in readme
    assert "PAGODA_REQUIRE=all" in script
