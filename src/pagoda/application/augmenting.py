"""Augmentation as a run: the packaged prompts rewrite, embeddings compare, the labels' chances are asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pagoda.application.client import home_door
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.runs.files import append_line, resume_lines
from pagoda.core.types import Call, Classify, Embed, Json
from pagoda.logic.evaluation.dataset import check_digest, digest_of
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.model.data.augmentation import Made, Means, Method, Plan, count_new, new_rows, sorted_out
from pagoda.model.data.quality import language_of
from pagoda.model.data.reading import HUB, DataSet, read_data, write_rows

KIND = "augmentation"
_CALL = Call(purpose="batch")
_LANGUAGES = {"en": "English", "zh": "中文"}


def plan_augmentation(data: DataSet, asked: Mapping[str, Json], plan: Plan) -> dict[str, Json]:
    """The config of a run; ``asked`` says how the rows are read and which model rewrites."""
    made = {**asdict(plan), "methods": list(plan.methods), "templates": list(plan.templates)}
    if data.source.startswith(HUB):
        return {**asked, "data": data.source, "digest": None, "plan": made}
    source = str(Path(data.source).expanduser().absolute())
    return {**asked, "data": source, "digest": digest_of(source), "plan": made}


async def run_augmentation(context: RunContext) -> Mapping[str, Json]:
    """Make rows with the models of this home, meaning and label checked; what an earlier attempt made stays."""
    config: dict[str, Any] = dict(context.config)
    if config["digest"] is not None:
        await asyncio.to_thread(check_digest, config["data"], config["digest"])
    data = await asyncio.to_thread(read_data, config["data"], form=config["form"], columns=config["columns"])
    given: dict[str, Any] = config["plan"]
    plan = Plan(**{**given, "methods": tuple(given["methods"]), "templates": tuple(given["templates"])})
    context.checkpoints.mkdir(parents=True, exist_ok=True)
    kept = context.checkpoints / "made.jsonl"
    made: list[dict[str, Any]] = await asyncio.to_thread(resume_lines, kept)
    total = count_new(data.rows, plan)
    settings = context.settings
    async with home_door(settings, os.environ) as door:
        means = means_of(door, config["model"] or settings.defaults.chat, settings.defaults.embedding)
        context.progress("augmenting", len(made), total)
        async for each in new_rows(data.rows, plan, means, skip=len(made)):
            made.append(asdict(each))
            await asyncio.to_thread(append_line, kept, made[-1])
            context.progress("augmenting", len(made), total)
    done = sorted_out(Made(**each) for each in made)
    await asyncio.to_thread(write_rows, Path(config["out"]), [*(row.content for row in data.rows), *done.added])
    if config["dropped"]:
        await asyncio.to_thread(write_rows, Path(config["dropped"]), done.dropped)
    return {"rows": len(data.rows), "added": len(done.added), "dropped": len(done.dropped), "out": config["out"]}


def means_of(door: Inference, model: str, embedding_model: str) -> Means:
    """What augmentation needs, through the one door."""
    composer = Composer(door, embedding_model)
    prompts = {name: _packaged(name) for name in ("rewrite", "translate")}

    async def said(name: str, **values: str) -> str:
        use = Use(version=prompts[name], values=values, model=model, language=_spoken(values["text"]))
        return (await ask(await composer.compose(use, _CALL, count=False), door, _CALL)).text

    async def rewrite(method: Method, text: str) -> str:
        if method == "paraphrase":
            return await said("rewrite", text=text)
        own = _spoken(text)
        other = "en" if own == "zh" else "zh"
        return await said(
            "translate", text=await said("translate", text=text, target=_LANGUAGES[other]), target=_LANGUAGES[own]
        )

    async def alike(old: str, new: str) -> float:
        found = await door.embed(Embed(model=embedding_model, inputs=(old, new)), _CALL)
        left, right = (np.frombuffer(vector, "<f4") for vector in found.vectors)
        return float(left @ right)

    async def label(text: str, labels: Sequence[str]) -> str:
        wanted = Classify(model=model, prompt=text, labels=tuple(f" {each}" for each in labels))
        chances = (await door.classify(wanted, _CALL)).probabilities
        return labels[chances.index(max(chances))]

    return Means(rewrite=rewrite, alike=alike, label=label, model=model)


def _packaged(name: str) -> PromptVersion:
    return read_prompt(files("pagoda.logic.prompts.library").joinpath(f"{name}.yaml").read_text("utf-8"), name)


def _spoken(text: str) -> str:
    return "zh" if language_of(text) == "zh" else "en"
