"""Prefix affinity beside round robin: two llama.cpp engines, more documents than one of them can keep, many questions.

Both pools stand before the same two engines and take turns with documents of their own, so that each finds the caches
full of what it cannot use. The questions come in a random order, one at a time, with the cache of answers off.
``hit_rate`` is the share of all prompt tokens that an engine had kept; the first question to a document is apart.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ground import median, with_engines
from benchmarks.prefix import MODEL, Answer, ask, beginning
from pagoda.core.configuration import load_settings
from pagoda.core.settings import Routing
from tests.pooled import pooled
from tests.services import Service

POLICIES = ("prefix_affinity", "round_robin")
DOCUMENTS = 5
QUESTIONS = 3
SENTENCES = 60
"""About 1,000 tokens."""
AT_ONCE = 1
ROUNDS = int(os.environ.get("AFFINITY_ROUNDS", "1"))


async def quiz(service: Service, policy: str, seed: int) -> tuple[list[Answer], list[Answer]]:
    """All questions to new documents: the first answer to each document, and the later ones."""
    documents = [beginning(1_000_000 * seed + 1000 * number, SENTENCES) for number in range(DOCUMENTS)]
    order = [(number, place) for number in range(DOCUMENTS) for place in range(1, QUESTIONS)]
    random.Random(seed).shuffle(order)
    order += [(number, 0) for number in range(DOCUMENTS)]  # taken from the end
    first: list[Answer] = []
    later: list[Answer] = []

    async def client() -> None:
        while order:
            number, place = order.pop()
            question = f"What of question {place}?"
            answer = await ask(service.session, service.url, documents[number], question, model=policy)
            (later if place else first).append(answer)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return first, later


async def measure() -> dict[str, Any]:
    """The two policies side by side."""
    answers: dict[str, tuple[list[Answer], list[Answer]]] = {policy: ([], []) for policy in POLICIES}
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings({"server.port": 0}, {"HOME": home, "PAGODA_HOME": home + "/home"}, Path(home))
        settings = with_engines(settings, threads=1, parallel=1, context=1280)
        pools = {policy: {"replicas": [{"model": MODEL, "copies": 2}], "policy": policy} for policy in POLICIES}
        async with pooled(settings, pools, routing=Routing(), scripted=False) as service:
            await _warm(service)
            for number in range(ROUNDS):
                for place, policy in enumerate(POLICIES if number % 2 else POLICIES[::-1]):
                    first, later = await quiz(service, policy, 1 + 2 * number + place)
                    answers[policy][0].extend(first)
                    answers[policy][1].extend(later)
    figures: dict[str, Any] = {"documents": DOCUMENTS, "questions": QUESTIONS, "rounds": ROUNDS}
    print(f"{'':18}{'hit rate':>9}{'later, first token ms':>23}{'p90':>8}{'first question ms':>19}")
    for policy, (first, later) in answers.items():
        row = {
            "prompt_tokens": median([each.prompt for each in later]),
            "hit_rate": round(sum(each.cached for each in later) / sum(each.prompt for each in later), 3),
            "ttft_ms": median([1000 * each.first for each in later]),
            "ttft_p90_ms": round(1000 * sorted(each.first for each in later)[int(0.9 * len(later))], 1),
            "first_question_ttft_ms": median([1000 * each.first for each in first]),
        }
        print(
            f"{policy:18}{row['hit_rate']:>9}{row['ttft_ms']:>23}{row['ttft_p90_ms']:>8}"
            f"{row['first_question_ttft_ms']:>19}",
            flush=True,
        )
        figures[policy] = row
    return figures


async def _warm(service: Service) -> None:
    """Have both engines run."""
    for name in (MODEL, f"{MODEL}-2"):
        while (await service.platform.states()).get(name, {}).get("state") != "ready":
            await ask(service.session, service.url, "Be brief.", "Hello", 1, POLICIES[0])
            await asyncio.sleep(0.1)
