"""The engines on a CPU: llama.cpp and transformers through Pagoda, beside plain ``model.generate``, in turn in one run.

The same model throughout: llama.cpp reads its 4-bit file, the others the checkpoint made from it in single precision.
Every answer is greedy and as long as asked, so all compute the same number of tokens. ``PROMPTS`` and ``TOKENS`` come
from the environment for a small trial.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import aiohttp

from benchmarks.ground import median, models_directory, service

PROMPTS = int(os.environ.get("PROMPTS", "32"))
TOKENS = int(os.environ.get("TOKENS", "64"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CONCURRENCY = 4
MODELS = {"llamacpp": "smollm2-135m-instruct", "transformers": "smollm2-135m-instruct-hf"}
END = 2
TOPICS = ("tea", "rivers", "trade", "music", "steel", "law", "maps", "bread")


def prompts(seed: int) -> list[str]:
    """Prompts of about twenty-five tokens, none a prefix of another."""
    return [
        f"{number} {seed}. Write about {TOPICS[number % 8]} in the towns of the north, and what the old books say of "
        f"{TOPICS[(number + seed) % 8]} there."
        for number in range(PROMPTS)
    ]


async def through_pagoda(url: str, model: str, seed: int) -> float:
    """Tokens a second of all prompts, ``CONCURRENCY`` at once."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def ask(session: aiohttp.ClientSession, prompt: str) -> int:
        body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logit_bias": {END: -100}}
        async with gate, session.post(url + "/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            count: int = (await response.json())["usage"]["completion_tokens"]
            return count

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        began = time.perf_counter()
        counts = await asyncio.gather(*(ask(session, prompt) for prompt in prompts(seed)))
        assert set(counts) == {TOKENS}, counts
        return sum(counts) / (time.perf_counter() - began)


class Plain:
    """transformers itself: one prompt after another, and all in static batches."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = next((models_directory() / "files" / MODELS["transformers"]).rglob("config.json")).parent
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def rate(self, seed: int, batch: int) -> float:
        """Tokens a second in batches of that size."""
        texts = prompts(seed)
        began = time.perf_counter()
        with self._torch.inference_mode():
            for at in range(0, len(texts), batch):
                block = self._tokenizer(texts[at : at + batch], return_tensors="pt", padding=batch > 1)
                self._model.generate(**block, min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False)
        return len(texts) * TOKENS / (time.perf_counter() - began)


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    plain = await asyncio.to_thread(Plain)
    rates: dict[str, list[float]] = {}
    with service() as (url, _):
        sides: dict[str, Any] = {
            "pagoda llamacpp": lambda seed: through_pagoda(url, MODELS["llamacpp"], seed),
            "pagoda transformers": lambda seed: through_pagoda(url, MODELS["transformers"], seed),
            "generate, one at a time": lambda seed: asyncio.to_thread(plain.rate, seed, 1),
            f"generate, batches of {CONCURRENCY}": lambda seed: asyncio.to_thread(plain.rate, seed, CONCURRENCY),
            f"generate, one batch of {PROMPTS}": lambda seed: asyncio.to_thread(plain.rate, seed, PROMPTS),
        }
        for model in MODELS.values():  # loading and first use are not what is measured
            await warm(url, model)
        for number in range(ROUNDS):
            names = list(sides) if number % 2 == 0 else list(reversed(sides))
            for name in names:
                rates.setdefault(name, []).append(await sides[name](number))
    print(f"{PROMPTS} prompts, {TOKENS} tokens each, {CONCURRENCY} at once through Pagoda")
    print(f"{'tokens/s':34}{'median':>9}{'least':>9}{'most':>9}")
    for name in sides:
        found = rates[name]
        print(f"{name:34}{median(found):>9}{min(found):>9.1f}{max(found):>9.1f}", flush=True)
    figures = {name.replace(",", "").replace(" ", "_"): median(found) for name, found in rates.items()}
    return {"prompts": PROMPTS, "tokens": TOKENS, "rounds": ROUNDS, "concurrency": CONCURRENCY, **figures}


async def warm(url: str, model: str) -> None:
    """Load a model."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.post(url + "/v1/completions", json={"model": model, "prompt": "x", "max_tokens": 2}) as response,
    ):
        assert response.status == 200, await response.text()
