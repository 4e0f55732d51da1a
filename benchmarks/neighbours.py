"""Two engines that compute at once on the same cores: what each gets of what it has alone, by how their threads wait.

Two copies of SmolLM2 under two names, each with the default number of threads; one stream each, for a fixed time.
Fair is half of alone for each; the share is the worse of the two against that. Alone and together take turns.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import aclosing
from typing import Any, cast

from benchmarks.ground import bare_engines, median, models_directory
from benchmarks.waiting import CHAT, SPINS
from pagoda.core.types import Delta, Generation, Sampling
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from pagoda.model.engines.llamacpp import LlamaCppEngine

ROUNDS = 3
WINDOW_SECONDS = 3.0


def pair() -> list[ModelEntry]:
    """One model file under two names."""
    path = next((models_directory() / "files" / CHAT).glob("*.gguf"))
    return [
        ModelEntry(id=name, task="chat", engine="llamacpp", source=LocalPath(path=str(path)))
        for name in ("left", "right")
    ]


async def rates(engines: list[LlamaCppEngine], number: int) -> list[float]:
    """Tokens a second of one stream of each, over a window that begins when all have their first token."""
    request = Generation(
        model=CHAT,
        messages=({"role": "user", "content": f"Tell me about tea, part {number}."},),
        max_tokens=2048,
        sampling=Sampling(temperature=0, logit_bias={0: -100.0, 2: -100.0}),
    )
    counts, waiting, end = [0] * len(engines), len(engines), math.inf

    async def stream(place: int) -> None:
        nonlocal waiting, end
        begun = False
        async with aclosing(engines[place].generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                if not begun and isinstance(event, Delta):
                    begun, waiting = True, waiting - 1
                    if not waiting:
                        end = time.perf_counter() + WINDOW_SECONDS
                elif time.perf_counter() > end:
                    break
                elif not waiting:
                    counts[place] += isinstance(event, Delta)

    await asyncio.gather(*(stream(place) for place in range(len(engines))))
    return [count / WINDOW_SECONDS for count in counts]


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    figures: dict[str, Any] = {"rounds": ROUNDS}
    names = ("left alone", "right alone", "left both", "right both", "sum both", "worse/half")
    print(f"{'tokens/s':12}" + "".join(f"{name:>13}" for name in names))
    for label, spin in SPINS.items():
        async with bare_engines(pair(), {"engines.spin": str(spin)}) as engines:
            left, right = cast("list[LlamaCppEngine]", engines)
            await rates([left, right], -1)  # the first round warms them
            got: dict[str, list[float]] = {name: [] for name in names}
            for number in range(ROUNDS):
                alone = [(await rates([engine], number))[0] for engine in (left, right)]
                both = await rates([left, right], number)
                share = min(2 * together / single for together, single in zip(both, alone, strict=True))
                for name, value in zip(names, (*alone, *both, sum(both), share), strict=True):
                    got[name].append(value)
        row = {name: median(values) for name, values in got.items()}
        print(f"{label:12}" + "".join(f"{value:>13}" for value in row.values()), flush=True)
        figures |= {f"{label}_{name.replace('/', '_to_').replace(' ', '_')}": value for name, value in row.items()}
    return figures
