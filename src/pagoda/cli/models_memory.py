"""``pagoda models load|unload``, and what ``pagoda models list`` tells of memory, asked of the running service."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import print_json, settings_from

if TYPE_CHECKING:
    from pathlib import Path

    from pagoda.core.settings import Settings
    from pagoda.model.catalog.entry import ModelEntry
    from pagoda.model.engines.contract import Memory
    from pagoda.service.lifecycle import Order, Step

Add = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]


def register(add: Add) -> None:
    """Add the two commands."""
    load = add("load", run_load, "load a model into the running service", "pagoda models load all-minilm-l6-v2 --pin")
    load.add_argument("model", help="id or alias")
    load.add_argument("--pull", action="store_true", help="fetch its files first when they are not here")
    load.add_argument(
        "--pin",
        dest="pinned",
        action=argparse.BooleanOptionalAction,
        help="keep it when others need its memory (--no-pin: let it go again)",
    )
    load.add_argument("--keep-alive", type=float, metavar="SECONDS", help="let it go after being idle; 0: never")
    unload = add(
        "unload", run_unload, "take a model out of the service's memory", "pagoda models unload all-minilm-l6-v2"
    )
    unload.add_argument("model", help="id or alias")


def run_load(args: argparse.Namespace) -> int:
    """Load a model."""
    from pagoda.service.lifecycle import Order

    order = Order(action="load", model=args.model, pull=args.pull, pinned=args.pinned, keep_alive=args.keep_alive)
    return _steer(args, order, "is ready")


def run_unload(args: argparse.Namespace) -> int:
    """Unload a model."""
    from pagoda.service.lifecycle import Order

    return _steer(args, Order(action="unload", model=args.model), "has left memory")


def service_view(settings: Settings) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """States of models and their memory as the running service knows them; ``None`` when none runs."""
    from pagoda.service.presence import Presence

    if Presence(settings.home).find() is None:
        return None, {}

    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        door = _door(settings)
        try:
            return await door.states(), await door.memory()
        finally:
            await door.close()

    return asyncio.run(ask())


def about_memory(
    about: dict[str, Any], entry: ModelEntry, path: Path | None, settings: Settings, states: dict[str, Any] | None
) -> dict[str, Any]:
    """A model's row with its state in the service and its memory, bytes; ``needed`` is an estimate."""
    need = _estimate(entry, path, settings)
    running, engine = states is not None, (states or {}).get(entry.id, {})
    here = running and about["state"] in ("present", "elsewhere")
    return {
        "state": engine.get("state", "unloaded" if here else about["state"]),
        "needed": need.total if need is not None else None,
        "used": engine["used"]["host"] + engine["used"]["gpu"] if engine else None,
        "service": engine or None,
    }


def _estimate(entry: ModelEntry, path: Path | None, settings: Settings) -> Memory | None:
    """What a model whose files are here will need; ``None`` when they are not, or are no model."""
    from pagoda.core.errors import PagodaError
    from pagoda.model.engines import engine_kind
    from pagoda.model.engines.contract import fitted
    from pagoda.service.hardware import room_of

    if path is None:
        return None
    try:
        kind = engine_kind(entry.engine)
        return kind.memory(entry, path, fitted(room_of(settings.engines), kind))
    except PagodaError:  # what is wrong with it is said where it is loaded
        return None


def spell_state(row: dict[str, Any]) -> str:
    """The state, with what goes on there."""
    engine = row["service"] or {}
    notes = ["pinned"] if engine.get("pinned") else []
    for name, word in (("in_flight", "running"), ("waiting", "waiting")):
        if engine.get(name):
            notes.append(f"{engine[name]} {word}")
    return str(row["state"]) + (f" ({', '.join(notes)})" if notes else "")


def spell_need(row: dict[str, Any]) -> str:
    """The memory it needs, and what its process uses."""
    from pagoda.model.catalog.disk import spell_bytes

    text = f"needs {spell_bytes(row['needed'])}" if row["needed"] else ""
    return f"{text}, uses {spell_bytes(row['used'])}" if row["used"] else text


def spell_context(row: dict[str, Any]) -> str:
    """Tokens of a request; of a running engine also how many it holds at once and how their KV cache is stored."""
    engine = row["service"] or {}
    if engine.get("context"):
        return f"{engine['context']} x {engine['parallel']} {engine['kv_type']}"
    return str(row["context"] or "")


def spell_memory(settings: Settings, memory: dict[str, Any]) -> str:
    """The budget in a line."""
    from pagoda.model.engines.contract import Footprint
    from pagoda.service.hardware import memory_budget

    if not memory:
        budget = memory_budget(settings.engines.memory, settings.engines.gpu_memory)
        return f"Budget of memory for models: {budget}. No service is running."
    return f"Memory for models: {Footprint(**memory['held'])} of {Footprint(**memory['budget'])} are set aside."


def _door(settings: Settings) -> Any:
    from pagoda.core.errors import Unavailable
    from pagoda.logic.inference.joined import Address, JoinedDoor
    from pagoda.service.presence import Presence

    async def find() -> Address:
        notice = Presence(settings.home).find()
        if notice is None:
            raise Unavailable("No service is running here; start one with `pagoda serve`.")
        return Address(notice.url, notice.key)

    return JoinedDoor(find)


def _steer(args: argparse.Namespace, order: Order, done: str) -> int:
    from pagoda.model.catalog.disk import spell_bytes

    settings = settings_from(args)

    async def follow() -> Step | None:
        door, last, shown = _door(settings), None, ""
        try:
            async for step in door.steer(order):
                last = step
                line = f"{step.model}: {step.stage if step.state == 'pulling' else step.state}"
                if step.total:
                    line += f" {100 * step.done // step.total} % of {spell_bytes(step.total)}"
                if line != shown and step.stage != "done":
                    print(line, file=sys.stderr, flush=True)
                shown = line
        finally:
            await door.close()
        return last

    last = asyncio.run(follow())
    if args.json:
        print_json(asdict(last) if last is not None else None)
    elif last is not None:
        print(f"{last.model} {done}.")
    return 0
