"""What benchmarks share: a service and a bare engine with the same plan, a busy neighbour, and medians."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pagoda.core.configuration import load_settings
from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.entry_file import write_entry
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.engines.contract import Engine
from pagoda.model.engines.openai import OpenAIEngine
from pagoda.service.host import StartGround
from pagoda.service.supervisor import Supervisor
from tests.services import process


def models_directory() -> Path:
    """Where the packaged models lie."""
    return load_settings({}, os.environ, Path.cwd()).models_directory


def settings(home: Path, flags: Mapping[str, str]) -> Settings:
    """Settings of a home of its own with the packaged models."""
    given = {"models.directory": str(models_directory()), **flags}
    return load_settings(given, {"PAGODA_HOME": str(home)}, home)


def with_engines(chosen: Settings, **engines: Any) -> Settings:
    """The same settings with the packaged models and other engines."""
    models = dataclasses.replace(chosen.models, directory=str(models_directory()))
    return dataclasses.replace(chosen, models=models, engines=dataclasses.replace(chosen.engines, **engines))


@asynccontextmanager
async def bare_engine(
    model: str, flags: Mapping[str, str] | None = None, kind: str = ""
) -> AsyncIterator[OpenAIEngine]:
    """The engine that the service would start for a model, or one of another kind, with nothing in front of it."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings(Path(folder), flags or {})
        shelf = open_shelf(chosen)
        ground = StartGround(locate=shelf.store.locate, logs=Path(folder), environment={}, start_seconds=120)
        supervisor = Supervisor(ground, chosen.engines)
        try:
            entry = shelf.catalog.resolve(model)
            engine = await supervisor.load(dataclasses.replace(entry, engine=kind or entry.engine))
            assert isinstance(engine, OpenAIEngine)
            yield engine
        finally:
            await supervisor.close()


@contextmanager
def service(environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """``pagoda serve`` as a user starts it; its address and process id."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"PAGODA_MODELS_DIRECTORY": str(models_directory()), **(environment or {})}
        with process(Path(folder), environment=given) as (url, child):
            yield url, child.pid


@contextmanager
def scripted_service(models: Sequence[ModelEntry], environment: Mapping[str, str]) -> Iterator[str]:
    """``pagoda serve`` as a process of its own that knows only these models; its address."""
    with tempfile.TemporaryDirectory() as folder:
        entries = Path(folder) / "models" / "entries"
        entries.mkdir(parents=True)
        for model in models:
            (entries / f"{model.id}.yaml").write_text(write_entry(model), encoding="utf-8")
        given = {"PAGODA_DEFAULTS_CHAT": models[0].id, **environment}
        with process(Path(folder), environment=given) as (url, _):
            yield url


@asynccontextmanager
async def bare_engines(models: Sequence[ModelEntry], flags: Mapping[str, str]) -> AsyncIterator[list[Engine]]:
    """The engines of models that are in no catalog, side by side with nothing in front of them."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings(Path(folder), flags)
        store = open_shelf(chosen).store
        ground = StartGround(locate=store.locate, logs=Path(folder), environment={}, start_seconds=120)
        supervisor = Supervisor(ground, chosen.engines)
        try:
            yield [await supervisor.load(model) for model in models]
        finally:
            await supervisor.close()


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """One core kept busy by something else."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        child.kill()
        child.wait()


def median(values: Sequence[float]) -> float:
    """The median, rounded to four significant digits."""
    return float(f"{statistics.median(values):.4g}")
