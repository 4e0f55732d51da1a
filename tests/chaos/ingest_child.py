"""Takes a folder in with made-up vectors, and says how many documents are done: ``HOME FOLDER``, to be killed."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pagoda.application.retrieving import Retrieval
from pagoda.core.configuration import load_settings
from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import Call, Embed, Embeddings
from pagoda.logic.retrieval.collection import Plan
from pagoda.logic.retrieval.ingestion import Report

PLAN = Plan(model="made-up", limit=40, overlap=5)


class MadeUp:
    """A door whose vectors follow from the texts."""

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        vectors = tuple(
            np.frombuffer(hashlib.sha256(str(text).encode()).digest(), np.uint8).astype("<f4").tobytes()
            for text in request.inputs
        )
        return Embeddings(model=request.model, vectors=vectors, dimensions=32, prompt_tokens=1)


def home(folder: Path) -> Settings:
    """Settings of a home in a folder."""
    return load_settings({}, {"HOME": str(folder), "PAGODA_HOME": str(folder)}, folder)


def retrieval_over(settings: Settings, store: Store) -> Retrieval:
    """Collections over an open store."""
    door: Any = MadeUp()

    async def opened() -> Store:
        return store

    return Retrieval(settings, opened, lambda: door)


async def take(settings: Settings, folder: Path, say: bool) -> Report:
    """Take a folder in."""

    def tell(stage: str, done: int, total: int | None) -> None:
        if say:
            print(done, flush=True)

    async with open_store(settings) as store:
        retrieval = retrieval_over(settings, store)
        collection = await retrieval.book.ensure("local", "killed", PLAN)
        return await retrieval.ingestion.take(collection, [folder], Call(), tell)


if __name__ == "__main__":
    asyncio.run(take(home(Path(sys.argv[1])), Path(sys.argv[2]), say=True))
