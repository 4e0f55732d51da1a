"""Chat through the service beside the bare engine: tokens a second and time to first token, at 1 and 8 streams.

Both sides get the same body, run the same engine with the same plan, and take turns, so that a change in the machine's
mood meets both. A third round adds a neighbour that keeps one core busy.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import aiohttp

from benchmarks.ground import bare_engine, busy_neighbour, median, service
from pagoda.core.types import Generation, Sampling

MODEL = "smollm2-135m-instruct"
TOKENS = 64
ROUNDS = 4
FIRSTS = 60
NO_END = {0: -100.0, 2: -100.0}  # every answer has the full length


async def one_stream(session: aiohttp.ClientSession, url: str, body: dict[str, Any], key: str) -> tuple[float, int]:
    """Time to first text (s) and number of frames with text."""
    began, first, count = time.perf_counter(), 0.0, 0
    headers = {"Authorization": f"Bearer {key}", "Cache-Control": "no-store"}  # each answer is computed
    async with session.post(url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if b'"delta":{"content":"' in line and b'"content":""' not in line:
                first = first or time.perf_counter() - began
                count += 1
    return first, count


async def round_of(url: str, body: dict[str, Any], key: str, streams: int) -> tuple[float, float]:
    """Tokens a second over all streams, and the median time to first token (ms)."""
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        got = await asyncio.gather(*(one_stream(session, url, body, key) for _ in range(streams)))
        seconds = time.perf_counter() - began
    return sum(count for _, count in got) / seconds, median([first for first, _ in got]) * 1000


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    request = Generation(
        model=MODEL,
        messages=({"role": "user", "content": "Tell me about the history of tea."},),
        sampling=Sampling(temperature=0, logit_bias=NO_END),
        max_tokens=TOKENS,
    )
    figures: dict[str, Any] = {"model": MODEL, "new_tokens": TOKENS, "rounds": ROUNDS}
    print(f"{'':28}{'bare tok/s':>11}{'Pagoda':>9}{'ratio':>8}{'bare ttft ms':>14}{'Pagoda':>9}{'added':>8}")
    with service() as (url, _):
        async with bare_engine(MODEL) as engine:
            path, bare_body = await engine.generation_body(request)
            body = {
                "model": MODEL,
                "messages": list(request.messages or ()),
                "temperature": 0,
                "max_tokens": TOKENS,
                "logit_bias": {str(token): bias for token, bias in NO_END.items()},
                "stream": True,
            }
            key = engine.session.headers["Authorization"].removeprefix("Bearer ")
            sides = {"bare": (engine.url + path, bare_body), "pagoda": (url + "/v1/chat/completions", body)}
            for side in sides.values():  # warm: both prompts cached, both engines' memory touched
                await round_of(*side, key, 8)
            figures |= await first_tokens(sides, key)
            for streams, neighbour in ((1, False), (8, False), (1, True), (8, True)):
                with busy_neighbour() if neighbour else nullcontext():
                    figures |= await compare(sides, key, streams, neighbour)
    return figures


async def first_tokens(sides: dict[str, tuple[str, dict[str, Any]]], key: str) -> dict[str, Any]:
    """The time to first token alone: many short answers in turn, since one long answer holds only one."""
    firsts: dict[str, list[float]] = {"bare": [], "pagoda": []}
    for number in range(FIRSTS):
        for name in sorted(sides, reverse=bool(number % 2)):
            url, body = sides[name]
            firsts[name].append((await round_of(url, {**body, "max_tokens": 2}, key, 1))[1])
    added = median([p - b for p, b in zip(firsts["pagoda"], firsts["bare"], strict=True)])
    bare, pagoda = median(firsts["bare"]), median(firsts["pagoda"])
    print(f"{f'first token, {FIRSTS} short':28}{'':>11}{'':>9}{'':>8}{bare:>14}{pagoda:>9}{added:>8}", flush=True)
    return {"first_token_bare_ms": bare, "first_token_pagoda_ms": pagoda, "first_token_added_ms": added}


async def compare(
    sides: dict[str, tuple[str, dict[str, Any]]], key: str, streams: int, neighbour: bool
) -> dict[str, Any]:
    """Rounds in turn; a row of the table."""
    rates: dict[str, list[float]] = {"bare": [], "pagoda": []}
    firsts: dict[str, list[float]] = {"bare": [], "pagoda": []}
    for number in range(ROUNDS):
        for name in sorted(sides, reverse=bool(number % 2)):
            rate, first = await round_of(*sides[name], key, streams)
            rates[name].append(rate)
            firsts[name].append(first)
    ratio = median([p / b for p, b in zip(rates["pagoda"], rates["bare"], strict=True)])
    added = median([p - b for p, b in zip(firsts["pagoda"], firsts["bare"], strict=True)])
    label = f"{streams} stream{'s' if streams > 1 else ''}{', one core busy' if neighbour else ''}"
    row = [
        median(rates["bare"]),
        median(rates["pagoda"]),
        ratio,
        median(firsts["bare"]),
        median(firsts["pagoda"]),
        added,
    ]
    print(f"{label:28}{row[0]:>11}{row[1]:>9}{row[2]:>8}{row[3]:>14}{row[4]:>9}{row[5]:>8}", flush=True)
    prefix = f"{streams}_streams{'_busy' if neighbour else ''}"
    names = ("bare_tokens_s", "pagoda_tokens_s", "ratio", "bare_ttft_ms", "pagoda_ttft_ms", "added_ttft_ms")
    return {f"{prefix}_{name}": value for name, value in zip(names, row, strict=True)}
