"""Distillation at work: what a run of the kind ``distillation`` does. It goes on where it was, answers included."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagoda.application.client import home_door
from pagoda.application.sheet import Sheet
from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.types import Call, Generation, Json, Sampling
from pagoda.logic.evaluation.dataset import check_digest, digest_of
from pagoda.logic.inference.answer import collect
from pagoda.model.catalog.checkpoints import find_checkpoint
from pagoda.model.catalog.opening import Shelf
from pagoda.model.data.reading import read_data, write_rows
from pagoda.model.data.rows import Row, conversation_fault
from pagoda.model.training.distillation import Recipe, recipe_of
from pagoda.model.training.launching import importing_torch

KIND = "distillation"
ANSWERS, ANSWERED = "answers.jsonl", "answered.jsonl"
"""What a served teacher said, as it came; and the rows with it, that are learnt."""
_AT_ONCE = 4


def plan_distillation(shelf: Shelf, recipe: Recipe) -> dict[str, Json]:
    """The config of a run, with models as folders. Raises ``UserError`` for what can be seen before any work."""
    data = Path(recipe.data).expanduser().absolute()
    recipe = recipe.model_copy(update={"data": str(data)})
    _read(recipe)
    student = find_checkpoint(shelf, recipe.student)
    if recipe.level == "logits":
        found = find_checkpoint(shelf, recipe.teacher)
        with importing_torch():
            from pagoda.model.training.inspecting import check_vocabularies  # noqa: PLC0415
        check_vocabularies(student, found)
        teacher = str(found)
    else:
        teacher = shelf.catalog.refer(recipe.teacher).id
    return {**recipe.model_dump(), "student": str(student), "teacher": teacher, "digest": digest_of(recipe.data)}


def run_distillation(context: RunContext) -> Mapping[str, Json]:
    """Ask a served teacher if it is to be asked, train the student, save it."""
    with importing_torch():
        from pagoda.model.training.teaching import teach  # noqa: PLC0415

    recipe = recipe_of({key: value for key, value in context.config.items() if key != "digest"})
    check_digest(recipe.data, str(context.config["digest"]))
    data = Path(recipe.data)
    if recipe.level == "sequence":
        data = context.artifacts / ANSWERED
        write_rows(data, asyncio.run(_answered(context, recipe)))
    return teach(recipe, data, context)


def _read(recipe: Recipe) -> Sequence[Row]:
    """The rows; what a served teacher answers they may lack. Raises ``InvalidRequest`` naming the row at fault."""
    asks = recipe.level == "sequence"
    found = read_data(recipe.data, limit=recipe.limit, defaults={"completion": ""} if asks else None)
    faults = [(each.number, each.why) for each in found.refused]
    faults += [(row.number, fault) for row in found.rows if (fault := _fault(row, asks=asks))]
    if faults:
        number, fault = min(faults)
        raise InvalidRequest(f"{found.source}, row {number}: {fault}.", param="data")
    found.check()
    return found.rows


def _fault(row: Row, *, asks: bool) -> str | None:
    if row.form == "chat":
        return conversation_fault(row.content["messages"], answered=not asks)
    if row.form == "completion":
        empty = "prompt" if asks else "completion"
        return None if row.content[empty].strip() else f"its {empty} is empty"
    if row.form == "text" and not asks:
        return None
    return f"rows of the form {row.form} are not for level {'sequence' if asks else 'logits'}"


async def _answered(context: RunContext, recipe: Recipe) -> list[dict[str, Json]]:
    """The rows with the teacher's answers; what was answered before is not asked again."""
    rows = _read(recipe)
    sheet = Sheet(context, rows, lambda row: str(row.number), stage="asking the teacher", file=ANSWERS)
    if sheet.left:
        async with home_door(context.settings, os.environ) as door:
            await sheet.fill(lambda row: _ask(row, recipe, door), _AT_ONCE)
    whole = [
        _with_answer(row, answer["text"])
        for row, answer in zip(rows, sheet.rows, strict=True)
        if answer["finish"] == "stop"
    ]
    if not whole:
        raise InvalidRequest(
            f"None of the teacher's {len(rows)} answers ended within answer_tokens {recipe.answer_tokens}; raise it.",
            param="answer_tokens",
        )
    if len(whole) < len(rows):
        context.log(f"{len(rows) - len(whole)} of {len(rows)} answers did not end in time and are left out.")
    return whole


async def _ask(row: Row, recipe: Recipe, door: Inference) -> dict[str, Json]:
    request = Generation(
        model=recipe.teacher,
        max_tokens=recipe.answer_tokens,
        sampling=Sampling(temperature=0.0, seed=recipe.seed),
        **_question(row),
    )
    answer = await collect(door, request, Call(purpose="batch", priority=20))
    return {"text": answer.text, "finish": answer.choices[0].finish}


def _question(row: Row) -> dict[str, Any]:
    if row.form == "completion":
        return {"prompt": row.content["prompt"]}
    messages = row.content["messages"]
    return {"messages": tuple(messages[:-1] if messages[-1]["role"] == "assistant" else messages)}


def _with_answer(row: Row, answer: str) -> dict[str, Json]:
    asked = _question(row)
    if "prompt" in asked:
        return {**asked, "completion": answer}
    return {"messages": [*asked["messages"], {"role": "assistant", "content": answer}]}
