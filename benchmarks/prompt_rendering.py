"""Filling a prompt in (target: under 0.2 ms a prompt), beside Jinja's sandbox with the same text.

Two prompts: the packaged summary, and a chain of thought with twenty examples and a text of 4,000 characters.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from jinja2.sandbox import SandboxedEnvironment

from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.library import from_library
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.prompts.rendering import render

ROUNDS, TIMES = 20, 500


def large() -> PromptVersion:
    """Twenty examples, four steps, a list and a block."""
    examples = "\n".join(
        f"      - {{text: example number {number} of this prompt, answer: class {number % 3}, reasoning: because}}"
        for number in range(20)
    )
    return read_prompt(
        "name: large\nvariables:\n  text: {trim: end}\n  labels: {type: list}\n  note: {required: false}\n"
        f"techniques:\n  chain-of-thought: {{}}\n  few-shot:\n    count: 20\n    examples:\n{examples}\n"
        'languages: {en: {task: "Classes: {{labels}}.{{#note}} {{note}}{{/note}}", input: "{{text}}", '
        "requirements: One class.}}\n"
    )


def microseconds(work: Any) -> float:
    """The median over rounds, of the mean over times."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(TIMES):
            work()
        rounds.append((time.perf_counter() - began) / TIMES * 1e6)
    return median(rounds)


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    summary = from_library("summarise")
    assert summary is not None
    text = "A sentence of some length. " * 150
    values = {"text": text, "sentences": 3, "focus": "prices"}
    many = {"text": text, "labels": ["one", "two", "three"], "note": "Careful."}
    version = large()
    peer = SandboxedEnvironment(autoescape=False).from_string(
        "Summarise the text.\n- Write {{ sentences }} sentences at most."
        "{% if focus %}\n- Care: {{ focus }}{% endif %}\n{{ text }}"
    )
    figures = {
        "summary_us": microseconds(lambda: render(summary, values)),
        "large_us": microseconds(lambda: render(version, many)),
        "jinja_sandbox_summary_us": microseconds(lambda: peer.render(**values)),
    }
    for name, value in figures.items():
        print(f"{name:28}{value:10.1f} µs")
    return {name: round(value, 2) for name, value in figures.items()} | {"target_us": 200}
