"""Embeddings through the service beside the bare engine, llama.cpp and sentence-transformers on torch, in the same run.

Then once more with one core kept busy by something else, which the service itself is to its engines. At last requests
of one text, of one client and of many at once, whose texts the engine computes in one batch.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import aiohttp

from benchmarks.ground import bare_engine, busy_neighbour, median, models_directory, service
from pagoda.model.engines.openai import OpenAIEngine

TEXTS = 64
ROUNDS = 4
CLIENTS = 32
MODELS = ("all-minilm-l6-v2", "multilingual-e5-small")
TOPICS = ("tea", "rivers", "trade", "music", "steel", "law", "maps", "bread")


def texts(seed: int) -> list[str]:
    """Short texts of about twenty tokens, none equal to another."""
    return [
        f"Note {seed}-{number}: what the old books say about {TOPICS[number % 8]} and {TOPICS[(number + seed) % 8]} "
        "in the northern towns."
        for number in range(TEXTS)
    ]


async def ask(session: aiohttp.ClientSession, url: str, model: str, key: str, batch: list[str]) -> None:
    body = {"model": model, "input": batch, "encoding_format": "base64"}
    headers = {"Authorization": f"Bearer {key}", "Cache-Control": "no-store"}  # each vector is computed
    async with session.post(url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        await response.read()


async def rate(url: str, model: str, key: str, seed: int) -> float:
    """Texts a second: four requests of sixteen texts at once."""
    batch = texts(seed)
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        await asyncio.gather(*(ask(session, url, model, key, batch[at : at + 16]) for at in range(0, TEXTS, 16)))
        return TEXTS / (time.perf_counter() - began)


async def single_rate(url: str, model: str, key: str, seed: int, clients: int) -> float:
    """Texts a second of requests with one text each, of so many clients at once."""
    left = [f"{text} {seed}" for text in texts(seed)]

    async def client(session: aiohttp.ClientSession) -> None:
        while left:
            await ask(session, url, model, key, [left.pop()])

    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        return TEXTS / (time.perf_counter() - began)


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    figures: dict[str, Any] = {"texts": TEXTS, "rounds": ROUNDS}
    print(f"{'texts/s':34}{'bare':>9}{'Pagoda':>9}{'ratio':>8}{'llamacpp':>9}{'torch':>9}")
    for model in MODELS:
        with service() as (url, _):
            async with bare_engine(model) as engine, bare_engine(model, kind="llamacpp") as other:
                sides = {
                    "bare": (engine.url + "/embeddings", key_of(engine)),
                    "pagoda": (url + "/v1/embeddings", ""),
                    "llamacpp": (other.url + "/embeddings", key_of(other)),
                }
                for address, key in sides.values():
                    await rate(address, model, key, 99)
                for neighbour in (False, True):
                    figures |= await compare(sides, model, neighbour)
                figures |= await crowd(*sides["pagoda"], model)
    return figures


def key_of(engine: OpenAIEngine) -> str:
    return engine.session.headers["Authorization"].removeprefix("Bearer ")


async def crowd(url: str, key: str, model: str) -> dict[str, Any]:
    """One client with one text after another, and many such clients, in turn."""
    rates: dict[int, list[float]] = {1: [], CLIENTS: []}
    for number in range(ROUNDS):
        for clients in sorted(rates, reverse=bool(number % 2)):
            rates[clients].append(await single_rate(url, model, key, 1000 + 2 * number + (clients > 1), clients))
    one, many = median(rates[1]), median(rates[CLIENTS])
    gain = median([crowded / alone for alone, crowded in zip(rates[1], rates[CLIENTS], strict=True)])
    print(f"{model}, one text a request: 1 client {one}, {CLIENTS} clients {many}, gain {gain}", flush=True)
    return {f"{model}_single_1": one, f"{model}_single_{CLIENTS}": many, f"{model}_single_gain": gain}


async def compare(sides: dict[str, tuple[str, str]], model: str, neighbour: bool) -> dict[str, Any]:
    """Rounds in turn; a row of the table."""
    rates: dict[str, list[float]] = {"bare": [], "pagoda": [], "llamacpp": [], "torch": []}
    with busy_neighbour() if neighbour else nullcontext():
        for number in range(ROUNDS):
            for name in sorted(sides, reverse=bool(number % 2)):
                rates[name].append(await rate(sides[name][0], model, sides[name][1], number))
        if model == "all-minilm-l6-v2":
            rates["torch"] = await asyncio.to_thread(torch_rates)
    ratio = median([p / b for p, b in zip(rates["pagoda"], rates["bare"], strict=True)])
    label = f"{model}{', busy' if neighbour else ''}"
    torch = median(rates["torch"]) if rates["torch"] else None
    bare, pagoda, other = (median(rates[name]) for name in sides)
    print(f"{label:34}{bare:>9}{pagoda:>9}{ratio:>8}{other:>9}{torch or '':>9}", flush=True)
    prefix = f"{model}{'_busy' if neighbour else ''}"
    row = {"bare": bare, "pagoda": pagoda, "ratio": ratio, "llamacpp": other, "torch": torch}
    return {f"{prefix}_{name}": value for name, value in row.items() if value is not None}


def torch_rates() -> list[float]:
    """sentence-transformers on the same checkpoint, batches of sixteen."""
    from sentence_transformers import SentenceTransformer

    folder = next((models_directory() / "files" / "all-minilm-l6-v2-checkpoint").rglob("modules.json")).parent
    model = SentenceTransformer(str(folder), device="cpu")
    model.encode(texts(98), batch_size=16)
    found = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        model.encode(texts(number), batch_size=16)
        found.append(TEXTS / (time.perf_counter() - began))
    return found
