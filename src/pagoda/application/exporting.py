"""Exports at work: what a run of the kind ``export`` does, from a trainer's folder to a model that serves.

A run that is executed again begins again: every file is written whole or not at all, and nothing enters the catalog
before the parity gate has passed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pagoda.application.platform import Platform
from pagoda.core.errors import Conflict, InvalidRequest
from pagoda.core.runs import RunContext
from pagoda.core.runs.files import write_json
from pagoda.core.settings import Cache, Defaults, Settings
from pagoda.core.types import Json
from pagoda.model.catalog.catalog import Catalog
from pagoda.model.catalog.checkpoints import find_checkpoint
from pagoda.model.catalog.disk import stored
from pagoda.model.catalog.entry import Adapter, LocalPath, ModelEntry
from pagoda.model.catalog.inspection import complete_entry
from pagoda.model.catalog.opening import Shelf, open_shelf
from pagoda.model.catalog.reference import check_id
from pagoda.model.export.folder import FLOATS, form_of
from pagoda.model.export.gguf_file import write_gguf
from pagoda.model.export.merging import Trained, base_named_by, is_adapter, load_trained, save_merged
from pagoda.model.export.parity import (
    Finding,
    Probe,
    Reading,
    compare,
    read_probes,
    tensor_tolerance_of,
    tolerance_of,
)
from pagoda.model.export.reading import check_file, check_stops, read_served, read_torch, usable
from pagoda.model.quantize.forms import find_form

KIND = "export"
REPORT = "parity.json"
MERGED = "merged"
Target: TypeAlias = Literal["gguf", "safetensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run's config."""

    base: str
    """The folder of a checkpoint."""
    adapter: str | None
    name: str
    """What the result is called in the catalog."""
    to: Target = "gguf"
    form: str = "F16"


def plan_export(
    shelf: Shelf, source: str, base: str | None, name: str | None, to: Target, form: str | None = None
) -> Plan:
    """The plan for what a person named: a folder of a checkpoint or an adapter, or a model of the catalog.

    Without a ``form`` GGUF is F16, and safetensors have their base's precision.
    Raises ``InvalidRequest``, ``NotFound`` or ``Conflict`` for what can be seen before anything is loaded.
    """
    if form is not None:
        form = find_form(form).name
        if to == "safetensors" and form not in FLOATS:
            raise InvalidRequest(f"Safetensors are written as {', '.join(FLOATS)}, not as {form}.", param="form")
    folder, adapter = located(shelf, source, base)
    if form is None:
        form = "F16" if to == "gguf" else form_of(folder)
    chosen = check_id(name or f"{(adapter or folder).name}-export")
    if any(chosen in (entry.id, *entry.aliases) for entry in shelf.catalog.entries()):
        raise Conflict(f"There is already a model {chosen}; choose another with --name, or remove it.", param="name")
    return Plan(base=str(folder), adapter=None if adapter is None else str(adapter), name=chosen, to=to, form=form)


def plan_json(plan: Plan) -> dict[str, Json]:
    """The plan as a run keeps it."""
    return asdict(plan)


async def run_export(context: RunContext) -> Mapping[str, Json]:
    """Merge, write, prove, register."""
    given: dict[str, Any] = dict(context.config)
    work = _Work(context, Plan(**given))
    return await work.perform()


class _Work:
    """One export."""

    def __init__(self, context: RunContext, plan: Plan) -> None:
        self._context = context
        self._plan = plan
        self._merged = context.artifacts / MERGED
        self._findings: list[Finding] = []

    async def perform(self) -> dict[str, Json]:
        plan, context = self._plan, self._context
        trained, trainer, probes, untied = await asyncio.to_thread(self._merge)
        file = context.artifacts / f"{plan.name}.gguf"
        served = self._merged
        if plan.to == "gguf":
            served = file
            await asyncio.to_thread(self._write, trained, file)
        await self._serve(trained, probes, trainer, served)
        failed = [finding for finding in self._findings if not finding.passed]
        report = {
            "passed": not failed,
            "checks": len(self._findings),
            "form": plan.form if plan.to == "gguf" else f"safetensors {plan.form}",
            "untied": untied,
            "findings": [finding.to_json() for finding in self._findings],
        }
        await asyncio.to_thread(write_json, context.artifacts / REPORT, report)
        if failed:
            raise Conflict(_refusal(failed, context.artifacts / REPORT), code="parity")
        catalog = open_shelf(context.settings).catalog
        entry = await asyncio.to_thread(register, catalog, served, plan.name)
        return {"model": entry.id, "path": str(served), "checks": len(self._findings), "untied": untied}

    def _merge(self) -> tuple[Trained, dict[str, Reading], list[Probe], bool]:
        """Load, read the trainer's answers, merge, and hold the merged checkpoint against them."""
        plan, context = self._plan, self._context
        context.progress("loading", 0, None)
        trained = load_trained(Path(plan.base), None if plan.adapter is None else Path(plan.adapter))
        probes = usable(trained.tokenizer, read_probes())
        if not probes:
            raise InvalidRequest("The chat template takes none of the conversations that parity is proven with.")
        context.progress("asking the trainer's model", 0, None)
        trainer = read_torch(trained, probes)
        context.progress("merging", 0, None)
        with stored(f"The checkpoint of {plan.name}", context.artifacts):
            shutil.rmtree(self._merged, ignore_errors=True)
            form = plan.form if plan.to == "safetensors" else "F32"  # GGUF is rounded once, when it is written
            untied = save_merged(trained, self._merged, FLOATS[form])
        merged = load_trained(self._merged, None)
        readings = read_torch(replace(merged, stops=trained.stops), probes, trainer)
        self._findings += compare("merged", readings, trainer, tolerance_of("merged" if form == "F32" else form))
        return replace(trained, model=None), trainer, probes, untied

    def _write(self, trained: Trained, file: Path) -> None:
        form = find_form(self._plan.form)
        write_gguf(self._merged, trained.tokenizer, trained.stops, file, form, self._context.progress)
        self._findings += check_file(file, self._merged, trained, tensor_tolerance_of(form.name))

    async def _serve(
        self, trained: Trained, probes: Sequence[Probe], trainer: Mapping[str, Reading], path: Path
    ) -> None:
        self._context.progress("asking the served model", 0, None)
        allowed = tolerance_of(self._plan.form)
        entry = entry_at(path, self._plan.name)
        async with trial_service(self._context, entry) as platform:
            door = platform.inference
            readings = await read_served(door, entry.id, trained.tokenizer, probes)
            self._findings += compare("served", readings, trainer, allowed, trained.tokenizer.all_special_ids)
            self._findings += await check_stops(door, entry.id, trained.stops)


def register(catalog: Catalog, path: Path, name: str) -> ModelEntry:
    """The catalog's entry for what passed; there may be one already, of an attempt that was killed after it made it."""
    entry = entry_at(path, name)
    ours = any(each.id == entry.id and each.source == entry.source for each in catalog.entries())
    return catalog.add(entry, replace=ours)


def entry_at(path: Path, name: str) -> ModelEntry:
    """An entry for a file or folder where it lies, completed from what it says of itself."""
    return complete_entry(ModelEntry(id=name, task="chat", engine="llamacpp", source=LocalPath(path=str(path))), path)


@asynccontextmanager
async def trial_service(context: RunContext, entry: ModelEntry) -> AsyncIterator[Platform]:
    """A platform for a model that no catalog has, with engines of this process and a home that nobody else joins."""
    home = context.checkpoints / "trial"
    home.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        home=home,
        engines=context.settings.engines,
        defaults=Defaults(chat=entry.id),
        cache=Cache(enabled=False),
        log=context.settings.log,
    )
    platform = Platform(settings, {})  # a local engine reads no keys
    platform.shelf.catalog.lend(entry)
    await platform.start()
    try:
        yield platform
    finally:
        await platform.stop()


def located(shelf: Shelf, source: str, base: str | None) -> tuple[Path, Path | None]:
    """The folders of a checkpoint and of an adapter, if that is what was named."""
    folder = Path(source).expanduser()
    if is_adapter(folder):
        named = base or base_named_by(folder)
        if not named:
            raise InvalidRequest(f"{folder} does not say what it was trained on; name its base with --base.")
        return find_checkpoint(shelf, named), folder.absolute()
    if base is not None:
        raise InvalidRequest(f"--base goes with an adapter, and {source} holds none.")
    if folder.is_dir():
        return folder.absolute(), None
    entry = shelf.catalog.refer(source)
    if isinstance(entry.source, Adapter):
        return find_checkpoint(shelf, entry.source.base), Path(entry.source.path)
    return find_checkpoint(shelf, source), None


def _refusal(failed: Sequence[Finding], report: Path) -> str:
    first = failed[0]
    where = f"{first.stage}, {first.probe}" if first.probe else first.stage
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return (
        f"The export is refused, because it would not answer as the trainer does: {where}: {first.what} {first.said}"
        f"{more}. {report} lists everything; nothing was registered."
    )
