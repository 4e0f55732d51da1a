"""4 variants on 200 cases over a scripted engine whose answers take 50 ms, beside one question at a time.

Target: it runs at the engine's concurrency (here 32 slots), and going on after it ended asks nothing again. Service and
comparison share one process here, so the processor time is of both.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pagoda.application.client import home_door
from pagoda.application.comparing import Desk, compare, report_of
from pagoda.application.optimizing import from_template
from pagoda.core.types import Call
from pagoda.logic.evaluation.score import Case
from pagoda.logic.evaluation.scorers import exact
from pagoda.logic.evaluation.trials import Trials, Variant
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composer
from tests.conftest import settings_in
from tests.services import fake_model, running

VARIANTS, CASES, SECONDS, SLOTS = 4, 200, 0.05, 32
MODEL = "fake-chat"


def variant(number: int) -> Variant:
    """One of the four."""
    return Variant(name=f"v{number}", version=from_template(f"v{number}", f"v{number} {{{{text}}}}"), model=MODEL)


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    with TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        settings = dataclasses.replace(settings, defaults=dataclasses.replace(settings.defaults, chat=MODEL))
        model = fake_model(text="yes", first_seconds=SECONDS, slots=SLOTS, parallel=SLOTS)
        async with running(settings, [model]), home_door(settings, os.environ) as door:
            cases = [Case(id=str(n), values={"text": f"case {n}"}, expected="yes") for n in range(CASES)]
            variants = [variant(number) for number in range(VARIANTS)]
            composer = Composer(door, "")
            warm = await composer.compose(variants[0].used(cases[0]), Call(), count=False)
            await ask(warm, door, Call())
            began = time.perf_counter()
            for _ in range(20):
                await ask(warm, door, Call(cache="bypass"))
            single = (time.perf_counter() - began) / 20
            trials = Trials(variants, cases, 1, Path(folder))

            async def seconds() -> float:
                began = time.perf_counter()
                await compare(trials, [exact()], Desk(door, settings), lambda *_: None)
                return time.perf_counter() - began

            processor = time.process_time()
            first = await seconds()
            processor = time.process_time() - processor
            again = await seconds()
            report = report_of(trials, ["exact"], settings)
    asked = VARIANTS * CASES
    figures = {
        "trials": asked,
        "complete": report.complete,
        "seconds": round(first, 2),
        "one_by_one_seconds": round(single * asked, 1),
        "ideal_seconds": round(asked * SECONDS / SLOTS, 2),
        "seconds_when_done": round(again, 2),
        "processor_ms_a_trial": round(processor / asked * 1e3, 2),
    }
    for name, value in figures.items():
        print(f"{name:24}{value}")
    return figures
