"""``pagoda``: the table of commands. Standard library only until a command runs, so that help comes at once.

Each command module has ``register(subparsers)``, which adds its parsers and sets ``run`` to the function that carries
the command out and gives the exit status: 0 done, 1 failed, 2 wrong use.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import pagoda
from pagoda.cli import (
    agents,
    batch,
    bench,
    cache,
    chat,
    config,
    data,
    doctor,
    drain,
    eval,
    experiments,
    export,
    keys,
    logs,
    models,
    pools,
    prompts,
    quantize,
    rag,
    reviews,
    runs,
    serve,
    tools,
    train,
    trust,
    version,
)
from pagoda.core.errors import ConfigError, InvalidRequest, PagodaError

_COMMANDS = (
    serve,
    drain,
    chat,
    doctor,
    models,
    pools,
    prompts,
    rag,
    trust,
    keys,
    agents,
    tools,
    batch,
    cache,
    logs,
    experiments,
    reviews,
    runs,
    data,
    train,
    eval,
    quantize,
    export,
    bench,
    config,
    version,
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="pagoda",
        description="Build, tune, serve, guard and watch applications on large language models.",
        epilog="Begin with `pagoda serve` and open the page it names, or talk in the terminal with `pagoda chat`.",
    )
    parser.add_argument("--version", action="version", version=f"pagoda {pagoda.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors are one sentence on standard error."""
    parsed = build_parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except (ConfigError, InvalidRequest) as error:
        return _complain(error.message, 2)
    except PagodaError as error:
        return _complain(error.message, 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _complain(message: str, status: int) -> int:
    sys.stderr.write(f"pagoda: {message}\n")
    return status
