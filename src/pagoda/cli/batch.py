"""``pagoda batch``: many requests in a file, answered offline, each exactly once."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pagoda.cli.context import add_json_flag, add_settings_flag, settings_from

if TYPE_CHECKING:
    from pathlib import Path

    from pagoda.core.runs import Run, Runs
    from pagoda.core.types import Json


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pagoda batch``."""
    batch = subparsers.add_parser(
        "batch",
        help="answer a file of requests",
        description="Answer a file of requests in OpenAI's batch format.",
        epilog="example:\n  pagoda batch run in.jsonl --out out.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = batch.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="answer every line of a file",
        description="Answer every line of a file. If it is stopped or killed, the same command goes on where it was.",
        epilog="example:\n  pagoda batch run in.jsonl --out out.jsonl --model smollm2-135m-instruct",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("input", metavar="IN", help="requests, one JSON object a line, as for OpenAI's batches")
    run.add_argument("--out", required=True, metavar="OUT", help="where the answers go, one JSON object a line")
    run.add_argument("--errors", metavar="FILE", help="where failed lines go (default: OUT with .errors.jsonl)")
    run.add_argument("--model", help="answers every line, whatever model it names")
    run.add_argument(
        "--concurrency", type=int, default=0, metavar="N", help="lines at once (default: as the engine likes)"
    )
    add_json_flag(run)
    add_settings_flag(run)
    run.set_defaults(run=run_batch)


def run_batch(args: argparse.Namespace) -> int:
    """``pagoda batch run``."""
    from pagoda.application.registry import run_kinds
    from pagoda.cli.runs import follow
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.runs import RunRegistry, Runs

    if args.concurrency < 0:
        raise InvalidRequest("--concurrency must be a whole number above 0, or 0 for what the engine likes.")
    runs = Runs(settings_from(args), RunRegistry(run_kinds()))
    run, after = _begin(runs, _config(args))
    if run.status != "done":
        status = follow(runs, run.id, after=after, as_json=args.json)
        run = runs.get(run.id)
        if status or run.status != "done":
            return status
    return _conclude(run, as_json=args.json)


def _config(args: argparse.Namespace) -> dict[str, Json]:
    import hashlib
    from pathlib import Path

    from pagoda.core.errors import InvalidRequest

    source, output = Path(args.input).absolute(), Path(args.out).absolute()
    errors = Path(args.errors).absolute() if args.errors else output.with_suffix(".errors.jsonl")
    if len({source, output, errors}) < 3:
        raise InvalidRequest("IN, --out and --errors must be three different files.")
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidRequest(f"{source} cannot be read ({error.strerror}).") from error
    return {
        "input": str(source),
        "output": str(output),
        "errors": str(errors),
        "model": args.model,
        "concurrency": args.concurrency,
        "digest": digest,
    }


def _begin(runs: Runs, config: dict[str, Json]) -> tuple[Run, str | None]:
    """The run that answers the file: the one that was begun before, or a new one; and from where to watch it."""
    from pathlib import Path

    from pagoda.core.errors import Conflict

    output = Path(config["output"])
    before = next((run for run in runs.find(kind="batch") if run.config.get("output") == config["output"]), None)
    begun = any(_has_content(Path(config[name])) for name in ("output", "errors"))
    if before is not None and (begun or not before.ended):
        same = all(before.config.get(name) == config[name] for name in ("digest", "model", "errors"))
        if not same:
            raise Conflict(
                f"{output} belongs to another batch (run {before.id}): another input, --model or --errors; remove it "
                "or choose another --out."
            )
        return (before, None) if before.status == "done" else runs.go_on(before)
    if begun:
        raise Conflict(f"{output} (or the file of errors beside it) exists already; remove it or choose another --out.")
    run = runs.create("batch", config)
    return runs.start(run.id), None


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _conclude(run: Run, *, as_json: bool) -> int:
    """Say how it came out; 1 when lines failed, so that a script notices."""
    from pagoda.cli.runs import tell_result

    result = run.result
    if as_json:
        tell_result(run)
    completed, failed = result["completed"], result["failed"]
    sys.stderr.write(f"{completed} answered, in {run.config['output']}\n")
    if failed:
        sys.stderr.write(f"{failed} failed, in {run.config['errors']}\n")
    return 1 if failed else 0
