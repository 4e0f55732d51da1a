"""``pagoda runs`` with the kinds of ``run_child``, as a program for tests on a real terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pagoda.application import registry
from pagoda.cli import runs
from pagoda.core.errors import PagodaError
from pagoda.core.runs import ledger
from tests.chaos import run_child


def main() -> int:
    registry.run_kinds = lambda: run_child.KINDS
    command = (sys.executable, str(Path(__file__).with_name("run_child.py")))
    defaults = ledger.Runs.__init__.__kwdefaults__
    assert defaults is not None
    defaults["command"] = command
    parser = argparse.ArgumentParser(prog="pagoda")
    runs.register(parser.add_subparsers())
    args = parser.parse_args()
    try:
        result: int = args.run(args)
    except PagodaError as error:
        print(f"pagoda: {error.message}", file=sys.stderr)
        return 1
    return result


if __name__ == "__main__":
    sys.exit(main())
