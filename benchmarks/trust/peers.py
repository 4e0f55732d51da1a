"""Peers of trust on the very items, samples and sources of the report, each in a Python that has it.

SelfCheckGPT (its unigram model, and its prompt) looks at the samples that were collected, RAGAS' faithfulness at the
text that the model was shown; where a model judges, it is the default one, served here. ``PEERS_PYTHON`` names the
Python (``pip install ragas spacy nltk openai``, and ``selfcheckgpt`` without what it asks for, most of which is torch).
Beside them the plainest of baselines: the cosine of answer and nearest sentence of its sources (or the mean one to the
samples where there are none), by all-MiniLM-L6-v2.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ground import settings
from benchmarks.trust.collect import CALL, Heard, subject_of
from benchmarks.trust.report import Figure, measure
from benchmarks.trust.sets import SETS, Item
from benchmarks.trust.table import load
from pagoda.application.client import home_door
from pagoda.core.configuration import load_settings
from pagoda.core.ports import Inference
from pagoda.core.types import Embed
from pagoda.logic.trust.claims import split_claims
from pagoda.logic.trust.evidence import excerpt
from pagoda.logic.trust.likelihood import MOST_SOURCE_CHARACTERS
from tests.services import running

MINILM = "all-minilm-l6-v2"
NAMES = {
    "unigram": "SelfCheckGPT, unigram",
    "prompt": "SelfCheckGPT, prompt (default model)",
    "ragas": "RAGAS faithfulness (default model)",
}
MOST = {"prompt": int(os.environ.get("PROMPTED", "100")), "ragas": int(os.environ.get("JUDGED", "10"))}
"""Odd items of each set that a peer's judge is asked about: it writes a word for each sentence and sample, or for a
minute on an item."""
_MOST_CHARACTERS = 600  # of a text that is embedded
_MOST_SENTENCES = 100  # of a text that an answer is held against

Scores = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a peer on a set: a figure over what it could judge, and of how many that is."""

    figure: Figure
    asked: int

    def line(self) -> str:
        """A row of the table. Scores of peers are no chances, so that nothing is said of their calibration."""
        share = f"{self.figure.items} of {self.asked} ({self.figure.items / self.asked:.0%})"
        return f"| {self.figure.way} | {self.figure.set} | {share} | {self.figure.right} | {self.figure.area} |"


def odd(folder: Path) -> list[tuple[Item, Heard]]:
    """The items of the report that models were asked about."""
    return [(item, said) for item, said in load(folder) if not item.even]


def shown(item: Item) -> str:
    """What its model was shown of an item's text."""
    subject = subject_of(item, item.answer, "")
    near = f"{item.question} {item.answer}"
    return excerpt(subject.sources, near, MOST_SOURCE_CHARACTERS[subject.language])


async def peer(name: str, known: Sequence[tuple[Item, Heard]], url: str, model: str) -> Scores | str:
    """A peer's scores by the items' keys, or why there are none."""
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        return "not measured: PEERS_PYTHON names no Python"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for item, said in known:
                row = {"key": item.key, "question": item.question, "answer": item.answer, "samples": said.samples}
                file.write(json.dumps(row | {"context": shown(item)}) + "\n")
        child = await asyncio.create_subprocess_exec(
            python, str(Path(__file__).with_name("peer.py")), name, str(path), url, model,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await child.communicate()
    if child.returncode:
        return f"not measured: {errors.decode().strip().splitlines()[-1][:200]}"
    found: Scores = json.loads(out.decode().splitlines()[-1])
    return found


def judged(way: str, known: Sequence[tuple[Item, Heard]], scores: Scores) -> list[Judged]:
    """A figure a set, over what was judged."""
    found = []
    for name in SETS:
        asked = [item for item, _ in known if item.set == name]
        told = [item for item in asked if "score" in scores[item.key]]
        if told:
            values = np.array([scores[item.key]["score"] for item in told], dtype=np.float64)
            figure = measure(way, name, values, np.array([bool(item.label) for item in told]))
            found.append(Judged(figure, len(asked)))
        elif asked:
            found.append(Judged(Figure(way, name, 0, 0, None, None, None, float("nan")), len(asked)))
    return found


async def cosines(known: Sequence[tuple[Item, Heard]], door: Inference) -> Scores:
    """The baseline by embeddings."""
    beside = {item.key: _beside(item, said) for item, said in known}
    texts = sorted({text for texts in beside.values() for text in texts} | {item.answer for item, _ in known})
    cut = [text[:_MOST_CHARACTERS] for text in texts]
    vectors: list[bytes] = []
    for at in range(0, len(cut), 64):
        request = Embed(model=MINILM, inputs=tuple(cut[at : at + 64]), kind="query")
        vectors += (await door.embed(request, CALL)).vectors
    rows = dict(zip(texts, (np.frombuffer(vector, "<f4") for vector in vectors), strict=True))
    found: dict[str, dict[str, float]] = {}
    for item, _ in known:
        near = [float(rows[item.answer] @ rows[text]) for text in beside[item.key]]
        found[item.key] = {"score": max(near) if item.context else float(np.mean(near))} if near else {}
    return found


def _beside(item: Item, said: Heard) -> list[str]:
    if item.context:
        return [claim.text for claim in split_claims(shown(item), _MOST_SENTENCES)]
    return [sample for sample in said.samples if sample.strip()]


async def figures(folder: Path) -> AsyncIterator[list[Judged] | str]:
    """All peers on the odd halves as they are done, and of those that did not run why."""
    known = odd(folder)
    async with home_door(load_settings({}, os.environ, Path("/")), os.environ) as door:
        yield judged("cosine of MiniLM", known, await cosines(known, door))
    with tempfile.TemporaryDirectory() as home:
        async with running(settings(Path(home), {"log.level": "error"}), []) as service:
            for name, way in NAMES.items():
                some = few(known, name) if name in MOST else known
                scores = await peer(name, some, f"{service.url}/v1", service.platform.settings.defaults.chat)
                yield f"{way}: {scores}" if isinstance(scores, str) else judged(way, some, scores)


def few(known: Sequence[tuple[Item, Heard]], name: str) -> list[tuple[Item, Heard]]:
    """The first items of each set, for RAGAS of those with sources."""
    fitting = [each for each in known if each[0].context or name != "ragas"]
    return [each for of in SETS for each in [one for one in fitting if one[0].set == of][: MOST[name]]]


async def report(folder: Path) -> None:
    """The table, and one line of JSON."""
    told: list[dict[str, Any]] = []
    missing: list[str] = []
    print("| Way | Set | Judged | Of these right | AUROC (95 %) |\n|---|---|--:|--:|--:|")
    async for found in figures(folder):
        if isinstance(found, str):
            missing.append(found)
            continue
        for each in found:
            print(each.line(), flush=True)
            figure = {"way": each.figure.way, "set": each.figure.set, "auroc": each.figure.auroc}
            told.append(figure | {"asked": each.asked, "judged": each.figure.items})
    print(json.dumps({"benchmark": "trust-peers", "figures": told, "missing": missing}), flush=True)
