"""`import pagoda` and every help page come without heavy modules: asserted by name, since time is the machine's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.commands import groups

HEAVY = frozenset(
    (
        "torch",
        "transformers",
        "sentence_transformers",
        "fastapi",
        "starlette",
        "pydantic",
        "aiohttp",
        "numpy",
        "sqlalchemy",
        "alembic",
        "rich",
        "xllamacpp",
        "uvicorn",
        "uvloop",
        "orjson",
        "psutil",
        "gguf",
        "jsonschema",
        "openai",
        "yaml",
        "prometheus_client",
    )
)

SHOW = """
import runpy, sys
sys.argv = ["pagoda", *sys.argv[1:]]
try:
    runpy.run_module("pagoda", run_name="__main__", alter_sys=True)
except SystemExit as leaving:
    assert not leaving.code, leaving.code
sys.stderr.write(" ".join(sys.modules))
"""


def loaded(code: str, *words: str) -> set[str]:
    """Modules that are loaded after the code has run in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=True, env=environment()
    )
    return set(run.stderr.split())


def environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": "/nonexistent"}


def test_importing_pagoda_loads_nothing_heavy() -> None:
    modules = loaded("import sys, pagoda; pagoda.__version__; sys.stderr.write(' '.join(sys.modules))")
    assert "pagoda" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("group", groups(), ids=" ".join)
def test_help_loads_nothing_heavy(group: tuple[str, ...]) -> None:
    modules = loaded(SHOW, *group, "--help")
    assert "pagoda.cli.main" in modules
    assert modules & HEAVY == set()


def test_the_heavy_modules_are_seen_when_they_are_loaded() -> None:
    modules = loaded("import sys, pagoda; pagoda.Client; sys.stderr.write(' '.join(sys.modules))")
    assert modules & HEAVY >= {"aiohttp", "orjson"}
