"""Retrieval wired together: collections over the records of a home, with its models and prompts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pagoda.application.client import home_door
from pagoda.application.prompting import open_prompts
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import PRIORITIES, Call, Json
from pagoda.logic.prompts.index import PromptIndex
from pagoda.logic.prompts.resolving import reference_from
from pagoda.logic.retrieval.answering import WORDING, Answerer, Wording
from pagoda.logic.retrieval.book import CollectionBook
from pagoda.logic.retrieval.collection import Tags
from pagoda.logic.retrieval.index import Searcher
from pagoda.logic.retrieval.ingestion import Ingestion
from pagoda.logic.trust.grounds import JudgedGrounds


class Retrieval:
    """Collections: taken in, searched, asked."""

    def __init__(
        self, settings: Settings, store: Callable[[], Awaitable[Store]], inference: Callable[[], Inference]
    ) -> None:
        self._settings = settings
        self._inference = inference
        self.store = store
        self.book = CollectionBook(store)
        self.searcher = Searcher(self.book, inference)
        self.ingestion = Ingestion(self.book, inference)

    @property
    def inference(self) -> Inference:
        """The door that it goes through."""
        return self._inference()

    async def answerer(self, prompts: PromptIndex, call: Call, model: str | None = None) -> Answerer:
        """Who answers questions; ``model`` is the default chat model if none is named. Raises what prompts raise."""
        found = {use: await prompts.resolve(reference_from(name), call) for use, name in WORDING.items()}
        chosen = model or self._settings.defaults.chat
        return Answerer(self.searcher, self._inference, chosen, Wording(**found), JudgedGrounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What a run of the kind ``ingestion`` takes in."""

    team: str
    collection: str
    paths: tuple[str, ...]
    """Files and folders, absolute."""
    labels: Mapping[str, str] | None = None
    """With ``keys``: what is said of each document; ``None``: what was said before stays."""
    keys: tuple[str, ...] | None = None

    @property
    def tags(self) -> Tags | None:
        """As the book takes them."""
        return None if self.labels is None else Tags(labels=self.labels, keys=self.keys)


def intake_json(intake: Intake) -> dict[str, Json]:
    """As a run's config."""
    return {**asdict(intake), "paths": list(intake.paths), "keys": None if intake.keys is None else list(intake.keys)}


async def run_ingestion(context: RunContext) -> Mapping[str, Json]:
    """Take files and folders in; what was taken in before it was stopped is not embedded again."""
    config: dict[str, Any] = dict(context.config)
    keys = config["keys"]
    intake = Intake(**{**config, "paths": tuple(config["paths"]), "keys": None if keys is None else tuple(keys)})
    async with home_retrieval(context.settings, os.environ) as (retrieval, _):
        collection = await retrieval.book.get(intake.team, intake.collection)
        call = Call(tenant=intake.team, purpose="ingestion", priority=PRIORITIES["batch"])
        roots = [Path(path) for path in intake.paths]
        report = await retrieval.ingestion.take(collection, roots, call, context.progress, intake.tags)
    return report.to_json()


@asynccontextmanager
async def home_retrieval(
    settings: Settings, environment: Mapping[str, str]
) -> AsyncIterator[tuple[Retrieval, PromptIndex]]:
    """The collections of this home; its service answers for the models, and is started if need be."""
    async with AsyncExitStack() as exit:
        store = await exit.enter_async_context(open_store(settings))
        door = await exit.enter_async_context(home_door(settings, environment))
        room = await exit.enter_async_context(open_prompts(settings))

        async def records() -> Store:
            return store

        yield Retrieval(settings, records, lambda: door), room.index
