"""Embeddings through the service beside the bare engine and sentence-transformers on torch, in the same run.

Then once more with one core kept busy by something else, which the service itself is to its engines.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import aiohttp

from benchmarks.ground import bare_engine, busy_neighbour, median, models_directory, service

TEXTS = 64
ROUNDS = 4
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
    async with session.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
        assert response.status == 200, await response.text()
        await response.read()


async def rate(url: str, model: str, key: str, seed: int) -> float:
    """Texts a second: four requests of sixteen texts at once."""
    batch = texts(seed)
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        await asyncio.gather(*(ask(session, url, model, key, batch[at : at + 16]) for at in range(0, TEXTS, 16)))
        return TEXTS / (time.perf_counter() - began)


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    figures: dict[str, Any] = {"texts": TEXTS, "rounds": ROUNDS}
    print(f"{'texts/s':34}{'bare':>9}{'Pagoda':>9}{'ratio':>8}{'torch':>9}")
    for model in MODELS:
        with service() as (url, _):
            async with bare_engine(model) as engine:
                key = engine.session.headers["Authorization"].removeprefix("Bearer ")
                sides = {"bare": engine.url + "/embeddings", "pagoda": url + "/v1/embeddings"}
                for side in sides.values():
                    await rate(side, model, key, 99)
                for neighbour in (False, True):
                    figures |= await compare(sides, model, key, neighbour)
    return figures


async def compare(sides: dict[str, str], model: str, key: str, neighbour: bool) -> dict[str, Any]:
    """Rounds in turn; a row of the table."""
    rates: dict[str, list[float]] = {"bare": [], "pagoda": [], "torch": []}
    with busy_neighbour() if neighbour else nullcontext():
        for number in range(ROUNDS):
            for name in sorted(sides, reverse=bool(number % 2)):
                rates[name].append(await rate(sides[name], model, key, number))
        if model == "all-minilm-l6-v2":
            rates["torch"] = await asyncio.to_thread(torch_rates)
    ratio = median([p / b for p, b in zip(rates["pagoda"], rates["bare"], strict=True)])
    label = f"{model}{', busy' if neighbour else ''}"
    torch = median(rates["torch"]) if rates["torch"] else None
    print(f"{label:34}{median(rates['bare']):>9}{median(rates['pagoda']):>9}{ratio:>8}{torch or '':>9}", flush=True)
    prefix = f"{model}{'_busy' if neighbour else ''}"
    row = {"bare": median(rates["bare"]), "pagoda": median(rates["pagoda"]), "ratio": ratio, "torch": torch}
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
