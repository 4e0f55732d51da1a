"""Reuse of prompts: time to first token and cached tokens where prompts begin alike and where they do not; then what
keys and values weigh in sixteen and in eight bits.

Through the service over HTTP, one request after another, greedy, with the cache of answers off. The shared beginning is
of about 600 tokens, as a system prompt with examples has; prompts that share nothing are as long.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from benchmarks.ground import median, service
from pagoda.service.hardware import process_memory

MODEL = "smollm2-135m-instruct"
LATER = 4
UNSHARED = 2
ROUNDS = 3
STREAMS = 4
NEW = 32
NO_END = {"0": -100.0, "2": -100.0}  # every answer has the full length
TOPICS = ("tea", "rivers", "trade", "music", "steel", "law", "maps", "bread")


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one stream: seconds to its first text, and what the usage says."""

    first: float
    prompt: int
    cached: int
    completion: int


def beginning(seed: int, count: int = 36) -> str:
    """About 600 tokens; another seed gives a text that differs from its first word on."""
    notes = (f"{seed + place}: of {TOPICS[(seed + place) % 8]} the old books say little." for place in range(count))
    return f"{seed}. Notes. " + " ".join(notes)


async def ask(
    session: aiohttp.ClientSession, url: str, system: str, question: str, tokens: int = 4, model: str = MODEL
) -> Answer:
    body = {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": tokens,
        "logit_bias": NO_END,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    usage: dict[str, Any] = {}
    began, first = time.perf_counter(), 0.0
    url += "/v1/chat/completions"
    async with session.post(url, json=body, headers={"Cache-Control": "no-store"}) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            frame = orjson.loads(line[6:])
            assert "error" not in frame, frame
            if not first and any((choice.get("delta") or {}).get("content") for choice in frame["choices"]):
                first = time.perf_counter() - began
            usage = frame.get("usage") or usage
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Answer(first, usage["prompt_tokens"], cached, usage["completion_tokens"])


async def reuse(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """First and later requests of a shared beginning, and some that share nothing, in turn."""
    got: dict[str, list[Answer]] = {"first of a beginning": [], "later of it": [], "nothing shared": []}
    for number in range(ROUNDS):
        shared = beginning(100_000 * (number + 1))
        got["first of a beginning"].append(await ask(session, url, shared, "What of question 0?"))
        for place in range(1, LATER + 1):
            got["later of it"].append(await ask(session, url, shared, f"What of question {place}?"))
        for place in range(UNSHARED):
            other = beginning(100_000 * (number + 4) + 100 * place)
            got["nothing shared"].append(await ask(session, url, other, f"What of question {place}?"))
    figures: dict[str, Any] = {}
    print(f"{'':24}{'first token ms':>16}{'prompt':>9}{'cached':>9}")
    for label, answers in got.items():
        row = {
            "ttft_ms": median([1000 * answer.first for answer in answers]),
            "prompt_tokens": median([answer.prompt for answer in answers]),
            "cached_tokens": median([answer.cached for answer in answers]),
        }
        print(f"{label:24}{row['ttft_ms']:>16}{row['prompt_tokens']:>9}{row['cached_tokens']:>9}", flush=True)
        figures |= {f"{label.replace(' ', '_')}_{name}": value for name, value in row.items()}
    figures["first_to_later_ttft"] = median([figures["first_of_a_beginning_ttft_ms"] / figures["later_of_it_ttft_ms"]])
    return figures


async def memory(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """The estimate of the model's memory and what its process holds, MB."""
    async with session.get(url + "/api/v1/models") as response:
        rows = (await response.json())["data"]
    (row,) = (row for row in rows if row["id"] == MODEL)
    return {
        "kv_estimate_mb": round(row["need"]["kv_cache"] / 1e6, 1),
        "estimate_mb": round(row["held"]["host"] / 1e6, 1),
        "resident_mb": round(process_memory(row["pid"]).host / 1e6, 1),
    }


async def together(session: aiohttp.ClientSession, url: str, seed: int) -> float:
    """Tokens a second of as many streams as the engine has slots, behind a prompt that is kept."""
    system = beginning(7, 8)
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(ask(session, url, system, f"Question {seed}-{place}?", NEW) for place in range(STREAMS))
    )
    return sum(answer.completion for answer in answers) / (time.perf_counter() - began)


async def measure() -> dict[str, Any]:
    """The tables, and their figures."""
    figures: dict[str, Any] = {"model": MODEL, "rounds": ROUNDS}
    kinds = ("f16", "q8_0")
    with service() as (wide, _), service({"PAGODA_ENGINES_KV_TYPE": "q8_0"}) as (narrow, _):
        sides = dict(zip(kinds, (wide, narrow), strict=True))
        async with aiohttp.ClientSession() as session:
            for url in sides.values():
                await ask(session, url, "Be brief.", "Hello")
            figures |= await reuse(session, wide)
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            for number in range(-1, ROUNDS):
                for kind in sorted(kinds, reverse=bool(number % 2)):
                    value = await together(session, sides[kind], number)
                    if number >= 0:  # the first round puts the prompts in place
                        rates[kind].append(value)
            print(f"\n{'keys and values':24}{'KV est. MB':>16}{'all est.':>9}{'resident':>9}{'tokens/s':>9}")
            for kind, url in sides.items():
                row = await memory(session, url) | {"tokens_s": median(rates[kind])}
                cells = list(row.values())
                print(f"{kind:24}{cells[0]:>16}" + "".join(f"{cell:>9}" for cell in cells[1:]), flush=True)
                figures |= {f"{kind}_{name}": value for name, value in row.items()}
    return figures
