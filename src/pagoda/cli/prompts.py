"""``pagoda prompts``: prompts as versioned data: read, kept, labelled, filled in and asked."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import command_group, print_json, settings_from
from pagoda.cli.prompts_compare import add_compare
from pagoda.cli.prompts_improve import add_improve
from pagoda.cli.prompts_use import add_use

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pagoda.application.prompting import PromptRoom
    from pagoda.logic.prompts.book import Author


def register(commands: Any) -> None:
    """Add the command group."""
    grouped = command_group(
        commands,
        "prompts",
        help_="prompts: list, show, render, run, diff, compare, improve, import, export, label, rollback, history",
        about="Prompts as versioned data. PROMPT is a name, name@version, name@label, or a YAML file.",
        example="run summarise --var text=@article.txt",
    )

    def add(name: str, run: Callable[[argparse.Namespace], int], does: str, example: str) -> argparse.ArgumentParser:
        parser = grouped(name, run, does, example)
        parser.add_argument("--team", default="local", help="whose prompts (default: this machine's own user)")
        return parser

    add("list", run_list, "list prompts, the team's and those that come with Pagoda", "list")
    add("show", run_show, "show a prompt's file", "show summarise").add_argument("prompt", metavar="PROMPT")
    add_use(add)
    add_compare(add)
    add_improve(add)
    diff = add("diff", run_diff, "show what changed between two prompts", "diff welcome@1 welcome@production")
    diff.add_argument("before", metavar="PROMPT")
    diff.add_argument("after", metavar="PROMPT")
    keeping = add(
        "import", run_import, "keep files as the next versions of prompts", "import welcome.yaml --label staging"
    )
    keeping.add_argument("files", metavar="FILE", nargs="+")
    keeping.add_argument("--label", help="let this label mean what was imported")
    keeping.add_argument("--note", default="", help="why, for the history")
    export = add("export", run_export, "write a prompt's file", "export summarise --out summarise.yaml")
    export.add_argument("prompt", metavar="PROMPT")
    export.add_argument("--out", metavar="FILE", help="where to (default: standard output)")
    label = add("label", run_label, "let a label mean a version", "label welcome production 3")
    _add_label(label)
    label.add_argument("version", metavar="VERSION", nargs="?", type=int)
    label.add_argument("--expected", type=int, metavar="VERSION", help="refuse unless it means this one until now")
    label.add_argument("--remove", action="store_true", help="take the label away")
    label.add_argument("--note", default="", help="why, for the history")
    back = add("rollback", run_rollback, "let a label mean again what it meant before", "rollback welcome production")
    _add_label(back)
    back.add_argument("--note", default="", help="why, for the history")
    history = add("history", run_history, "show what was kept and moved", "history welcome --label production")
    history.add_argument("name", metavar="NAME")
    history.add_argument("--label", help="only the moves of this label")


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("label", metavar="LABEL", help="production is what is live; others as you like")


def run_list(args: argparse.Namespace) -> int:
    """List prompts."""
    from pagoda.core.types import Call
    from pagoda.logic.prompts.library import library_names
    from pagoda.logic.prompts.prompt import PromptReference
    from pagoda.logic.prompts.view import prompt_json

    async def look(room: PromptRoom) -> list[dict[str, Any]]:
        own = room.index.names(args.team)
        rows = []
        for name in sorted({*own, *library_names()}):
            found = await room.index.resolve(PromptReference(name=name), Call(tenant=args.team))
            rows.append(prompt_json(found, own[name].labels if name in own else {}))
        return rows

    rows = _within(args, look)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        labels = ", ".join(f"{label} {version}" for label, version in sorted(row["labels"].items()))
        origin = "" if row["origin"] == "team" else "comes with Pagoda"
        parts = (f"{row['name']}@{row['version']}", "/".join(row["languages"]), labels, origin, row["description"])
        sys.stdout.write("  ".join(part for part in parts if part) + "\n")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show a prompt."""
    from pagoda.logic.prompts.view import prompt_json

    async def look(room: PromptRoom) -> dict[str, Any]:
        found = await room.find(args.prompt, args.team)
        head = room.index.names(args.team).get(found.prompt.name)
        return prompt_json(found, head.labels if head is not None else {}, source=True)

    told = _within(args, look)
    if args.json:
        print_json(told)
    else:
        sys.stdout.write(told["source"].rstrip("\n") + "\n")
    return 0


def run_diff(args: argparse.Namespace) -> int:
    """Show a difference."""
    from pagoda.logic.prompts.view import difference

    async def look(room: PromptRoom) -> tuple[str, str, str]:
        old, new = await room.find(args.before, args.team), await room.find(args.after, args.team)
        return old.reference, new.reference, difference(old, new)

    before, after, text = _within(args, look)
    if args.json:
        print_json({"before": before, "after": after, "diff": text})
    else:
        sys.stdout.write(text + "\n" if text else f"{before} and {after} say the same.\n")
    return 0


def run_import(args: argparse.Namespace) -> int:
    """Keep prompts; nothing is kept when one of the files is wrong."""
    from pathlib import Path

    from pagoda.logic.prompts.file import read_prompt_file

    read = [read_prompt_file(Path(file)) for file in args.files]

    async def keep(room: PromptRoom) -> list[dict[str, Any]]:
        rows = []
        for each in read:
            version, saved = await room.book.save(each, _author(args))
            if args.label:
                await room.book.move(version.prompt.name, args.label, version.version, _author(args))
            rows.append({"name": version.prompt.name, "version": version.version, "saved": saved, "label": args.label})
        return rows

    rows = _within(args, keep)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        said = "is kept" if row["saved"] else "says the same already"
        label = f"; {row['label']} means it" if row["label"] else ""
        sys.stdout.write(f"{row['name']}@{row['version']} {said}{label}.\n")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write a prompt's file."""
    from pathlib import Path

    from pagoda.core.errors import InvalidRequest

    async def look(room: PromptRoom) -> tuple[str, str]:
        found = await room.find(args.prompt, args.team)
        return found.reference, found.source

    reference, source = _within(args, look)
    if args.out is None:
        if args.json:
            print_json({"reference": reference, "source": source})
        else:
            sys.stdout.write(source)
        return 0
    try:
        Path(args.out).write_text(source, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{args.out} cannot be written ({error.strerror}).") from error
    if args.json:
        print_json({"reference": reference, "out": args.out})
    else:
        sys.stderr.write(f"{reference} is in {args.out}.\n")
    return 0


def run_label(args: argparse.Namespace) -> int:
    """Move or remove a label."""
    from pagoda.core.errors import InvalidRequest

    if (args.version is None) != args.remove:
        raise InvalidRequest("Give the version that the label shall mean, or --remove.")

    async def change(room: PromptRoom) -> Any:
        if args.remove:
            return await room.book.remove(args.name, args.label, _author(args))
        return await room.book.move(args.name, args.label, args.version, _author(args), expected=args.expected)

    return _tell_change(args, _within(args, change))


def run_rollback(args: argparse.Namespace) -> int:
    """Take a label back."""

    async def change(room: PromptRoom) -> Any:
        return await room.book.roll_back(args.name, args.label, _author(args))

    return _tell_change(args, _within(args, change))


def run_history(args: argparse.Namespace) -> int:
    """Show the history."""
    from pagoda.logic.prompts.book import missing
    from pagoda.logic.prompts.view import change_json

    async def look(room: PromptRoom) -> list[dict[str, Any]]:
        return [change_json(line) for line in await room.book.history(args.team, args.name, args.label)]

    rows = _within(args, look)
    if not rows:
        raise missing(args.name)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        moved = f"{row['label']}: {row['before'] or 'nothing'} -> {row['version'] or 'nothing'}" if row["label"] else ""
        parts = (row["at"], row["who"], row["action"], moved or f"version {row['version']}", row["note"])
        sys.stdout.write("  ".join(part for part in parts if part) + "\n")
    return 0


def _tell_change(args: argparse.Namespace, change: Any) -> int:
    from pagoda.logic.prompts.view import change_json

    if args.json:
        print_json(change_json(change))
    elif change.version is None:
        sys.stdout.write(f"{change.name} has no label {change.label} any more; it meant version {change.before}.\n")
    else:
        before = f" (before: {change.before})" if change.before is not None else ""
        sys.stdout.write(f"{change.label} of {change.name} means version {change.version} now{before}.\n")
    return 0


def _author(args: argparse.Namespace) -> Author:
    from pagoda.logic.prompts.book import Author

    return Author(args.team, "local", getattr(args, "note", ""))


def _within(args: argparse.Namespace, ask: Callable[[PromptRoom], Awaitable[Any]]) -> Any:
    """What the prompts of this home answer."""
    import asyncio

    from pagoda.application.prompting import open_prompts

    async def run() -> Any:
        async with open_prompts(settings_from(args)) as room:
            return await ask(room)

    return asyncio.run(run())
