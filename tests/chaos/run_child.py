"""What ``pagoda runs exec`` is to users, for tests: executes a run of one of the kinds below in this process."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pagoda.core.errors import PagodaError
from pagoda.core.runs import RunContext, RunRegistry, RunTarget, execute
from pagoda.core.settings import Settings


def count(context: RunContext) -> dict[str, Any]:
    """Many small steps with a checkpoint after each; the result depends on every one of them and on the seed."""
    state = context.load_state() or {"step": 0, "value": context.seed}
    steps = context.config["steps"]
    while state["step"] < steps:
        context.progress("count", state["step"], steps)
        value = (state["value"] * 6364136223846793005 + state["step"]) % 2**61
        state = {"step": state["step"] + 1, "value": value}
        context.metric(state["step"], value=value % 1000)
        context.save_state(state)
        if state["step"] == context.config.get("die_at") and not context.resumed:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(context.config.get("pause", 0))
    context.progress("count", steps, steps)
    (context.artifacts / "value.txt").write_text(str(state["value"]))
    return {"value": state["value"]}


def fail(context: RunContext) -> None:
    """Fails the first time only, if it is told so."""
    context.event("about-to-fail", attempt=context.attempt)
    if not (context.resumed and context.config.get("once")):
        raise ValueError("the data has a hole\nand more about it")


def stubborn(context: RunContext) -> None:
    """Never looks whether it shall stop."""
    context.progress("stubborn", 0)
    while True:
        time.sleep(0.05)


def wait(context: RunContext) -> None:
    """Works until it is asked to stop."""
    context.log("waiting")
    step = 0
    while True:
        context.progress("wait", step, None)
        step += 1
        time.sleep(0.02)


def fill(context: RunContext) -> None:
    """Writes until the disk is full."""
    number = 0
    while True:
        number += 1
        context.event("filling", text="x" * 4000, number=number)


async def asynchronous(context: RunContext) -> dict[str, int]:
    """Work that is a coroutine."""
    import asyncio

    await asyncio.sleep(0)
    context.metric(1, loss=float("nan"))
    return {"answer": 42}


KINDS: dict[str, RunTarget] = {
    "count": count,
    "fail": "tests.chaos.run_child:fail",
    "stubborn": stubborn,
    "wait": wait,
    "fill": fill,
    "asynchronous": asynchronous,
    "missing": "tests.chaos.run_child:no_such_function",
}


def _die_around_replacements(number: int, moment: str) -> None:
    """Let the ``number``-th atomic replacement of a file be this process's last act, ``before`` or ``after`` it."""
    real = Path.replace
    seen = 0

    def replacement(path: Path, target: Any) -> Path:
        nonlocal seen
        seen += 1
        if seen == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(path, target)
        if seen == number and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(Path, "replace", replacement)  # noqa: B010 - mypy knows no other way


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--grace", type=float, default=30.0)
    parser.add_argument("--die", nargs=2, metavar=("NUMBER", "MOMENT"))
    arguments = parser.parse_args()
    if arguments.die:
        _die_around_replacements(int(arguments.die[0]), arguments.die[1])
    try:
        settings = Settings(home=arguments.home)
        run = execute(arguments.run, RunRegistry(KINDS), settings, grace=arguments.grace)
    except PagodaError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0 if run.status == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
