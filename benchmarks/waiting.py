"""How long an engine's idle threads should spin before they sleep, alone and beside one busy core.

Three engines with the same model take turns: OpenMP's default of 300,000 rounds, none, and Pagoda's default. These
figures chose it (``engines.spin``).
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, nullcontext
from typing import Any

from benchmarks.embeddings import texts
from benchmarks.ground import bare_engine, busy_neighbour, median
from pagoda.core.settings import Engines
from pagoda.core.types import Embed, Generation, Sampling
from pagoda.model.engines.openai import OpenAIEngine

ROUNDS = 4
SPINS = {"openmp": 300_000, "none": 0, "pagoda": Engines().spin}
CHAT = "smollm2-135m-instruct"
EMBEDDING = "multilingual-e5-small"


async def chat_rate(engine: OpenAIEngine, number: int) -> float:
    """Tokens a second of one stream."""
    request = Generation(
        model=CHAT,
        messages=({"role": "user", "content": f"Tell me about tea, part {number}."},),
        max_tokens=48,
        sampling=Sampling(temperature=0, logit_bias={0: -100.0, 2: -100.0}),
    )
    began = time.perf_counter()
    async for _ in engine.generate(request):
        pass
    return 48 / (time.perf_counter() - began)


async def text_rate(engine: OpenAIEngine, number: int) -> float:
    """Texts a second of one request."""
    batch = tuple(texts(number)[:24])
    began = time.perf_counter()
    await engine.embed(Embed(model=EMBEDDING, inputs=batch))
    return len(batch) / (time.perf_counter() - began)


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    figures: dict[str, Any] = {"rounds": ROUNDS}
    print(f"{'':40}" + "".join(f"{name:>10}" for name in SPINS))
    for model, rate in ((CHAT, chat_rate), (EMBEDDING, text_rate)):
        async with AsyncExitStack() as stack:
            sides = {
                name: await stack.enter_async_context(bare_engine(model, {"engines.spin": str(spin)}))
                for name, spin in SPINS.items()
            }
            for neighbour in (False, True):
                got: dict[str, list[float]] = {name: [] for name in sides}
                with busy_neighbour() if neighbour else nullcontext():
                    for number in range(-1, ROUNDS):
                        for name, engine in sides.items():
                            value = await rate(engine, number)
                            if number >= 0:  # the first round warms them
                                got[name].append(value)
                label = f"{model}{', one core busy' if neighbour else ''}"
                print(f"{label:40}" + "".join(f"{median(values):>10}" for values in got.values()), flush=True)
                figures |= {f"{label}, {name}": median(values) for name, values in got.items()}
    return figures
