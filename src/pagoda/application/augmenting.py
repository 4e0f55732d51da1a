"""Augmentation wired to the models: the packaged prompts rewrite, embeddings compare, the labels' chances are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np

from pagoda.application.client import home_door
from pagoda.core.ports import Inference
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Classify, Embed
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.model.data.augmentation import Augmented, Means, Method, Plan, augment
from pagoda.model.data.quality import language_of
from pagoda.model.data.rows import Row

_CALL = Call(purpose="batch")
_LANGUAGES = {"en": "English", "zh": "中文"}


async def augment_served(
    rows: Sequence[Row], plan: Plan, settings: Settings, environment: Mapping[str, str], model: str | None
) -> Augmented:
    """``augment`` with the models of this home: meaning is checked, and the label where there is one."""
    async with home_door(settings, environment) as door:
        return await augment(rows, plan, means_of(door, model or settings.defaults.chat, settings.defaults.embedding))


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
