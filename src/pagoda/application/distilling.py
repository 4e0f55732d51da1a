"""Distillation at work: what a run of the kind ``distillation`` does. It goes on where it was, answers included."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pagoda.application.client import home_door
from pagoda.application.exporting import checkpoint_of
from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.runs.files import append_line, cut_torn_line, read_lines
from pagoda.core.types import Call, Generation, Json, Sampling
from pagoda.logic.inference.answer import collect
from pagoda.model.catalog.disk import stored
from pagoda.model.catalog.opening import Shelf
from pagoda.model.distillation.recipe import Recipe, recipe_of
from pagoda.model.distillation.rows import Row, read_rows
from pagoda.model.distillation.teaching import load_pair, save_student, teach

KIND = "distillation"
STUDENT, PLOT = "student", "loss.svg"
_AT_ONCE = 4


def plan_distillation(shelf: Shelf, recipe: Recipe) -> dict[str, Json]:
    """The config of a run, with models as folders. Raises ``UserError`` for what can be seen before any work."""
    data = Path(recipe.data).expanduser().absolute()
    read_rows(data, recipe.limit, answered=recipe.level == "logits")
    changes = {"data": str(data), "student": str(checkpoint_of(shelf, recipe.student))}
    if recipe.level == "logits":
        changes["teacher"] = str(checkpoint_of(shelf, recipe.teacher))
    else:
        changes["teacher"] = shelf.catalog.refer(recipe.teacher).id
    return {**recipe.model_dump(), **changes}


async def run_distillation(context: RunContext) -> Mapping[str, Json]:
    """Ask a served teacher if it is to be asked, train the student, save it."""
    recipe = recipe_of(context.config)
    context.progress("loading", 0, None)
    teacher = Path(recipe.teacher) if recipe.level == "logits" else None
    rows = read_rows(Path(recipe.data), recipe.limit, answered=teacher is not None)
    pair = await asyncio.to_thread(load_pair, Path(recipe.student), teacher)
    if teacher is None:
        async with home_door(context.settings, os.environ) as door:
            rows = await _answered(context, recipe, rows, door)

    def watch(step: int, steps: int, figures: Mapping[str, float]) -> None:
        context.metric(step, **figures)
        losses.append((step, figures["loss"]))
        context.progress("training", step, steps)

    losses: list[tuple[int, float]] = []
    place = context.checkpoints / "training"
    with stored("The student", context.directory):
        figures = await asyncio.to_thread(teach, pair, rows, recipe, place, watch)
        await asyncio.to_thread(save_student, pair, context.artifacts / STUDENT)
    if find_spec("matplotlib") is not None:
        await asyncio.to_thread(_draw, losses, context.artifacts / PLOT)
    return {"student": str(context.artifacts / STUDENT), "rows": len(rows), **figures}


async def _answered(context: RunContext, recipe: Recipe, rows: Sequence[Row], door: Inference) -> list[Row]:
    """The rows with the teacher's answers; those that came before are not asked again."""
    path = context.artifacts / "answers.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        cut_torn_line(path)
    known = {row["row"]: row for row in (read_lines(path, 0)[0] if path.exists() else ())}
    left = asyncio.Semaphore(_AT_ONCE)

    async def ask(number: int, row: Row) -> None:
        async with left:
            what: dict[str, Any] = {"prompt": row.prompt} if isinstance(row.prompt, str) else {"messages": row.prompt}
            request = Generation(
                model=recipe.teacher,
                max_tokens=recipe.answer_tokens,
                sampling=Sampling(temperature=0.0, seed=recipe.seed),
                **what,
            )
            answer = await collect(door, request, Call(purpose="batch", priority=20))
            known[number] = {"row": number, "text": answer.text, "finish": answer.choices[0].finish}
            append_line(path, known[number])
            context.progress("asking the teacher", len(known), len(rows))

    tasks = [asyncio.create_task(ask(number, row)) for number, row in enumerate(rows) if number not in known]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    whole = [
        Row(row.prompt, known[number]["text"]) for number, row in enumerate(rows) if known[number]["finish"] == "stop"
    ]
    if not whole:
        raise InvalidRequest(
            f"None of the teacher's {len(rows)} answers ended within answer_tokens {recipe.answer_tokens}; raise it.",
            param="answer_tokens",
        )
    if len(whole) < len(rows):
        context.log(f"{len(rows) - len(whole)} of {len(rows)} answers did not end in time and are left out.")
    return whole


def _draw(losses: Sequence[tuple[int, float]], place: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([step for step, _ in losses], [loss for _, loss in losses])
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    figure.savefig(place)
