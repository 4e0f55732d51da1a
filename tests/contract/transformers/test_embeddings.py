"""Embeddings by the transformers engine against sentence-transformers on the same checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pagoda.core.errors import ContextTooLong, InvalidRequest
from pagoda.core.types import Embed, Generation
from pagoda.model.catalog.inspection import complete_entry
from pagoda.model.catalog.opening import Shelf
from pagoda.service.supervisor import Supervisor
from tests.contract.transformers.conftest import local

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]

TEXTS = (
    "hello",
    "What is the capital of France?",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "Émile Zola wrote “J’accuse…!” in 1898 — naïve cafe\u0301.",
    "什么是机器学习？机器学习是人工智能的一个分支。",
    "한국어 문장과 日本語の文章、Русский текст",
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
async def test_vectors_are_those_of_sentence_transformers(supervise: Callable[[], Supervisor], shelf: Shelf) -> None:
    path = shelf.store.locate(shelf.catalog.find("all-minilm-l6-v2-checkpoint"))
    assert path is not None
    entry = complete_entry(local(path, "minilm", "embedding"), path)
    assert (entry.engine, entry.task, entry.dimensions, entry.context) == ("transformers", "embedding", 384, 512)
    supervisor = supervise()
    try:
        engine = await supervisor.load(entry)
        found = await engine.embed(Embed(model="minilm", inputs=TEXTS))
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(str(path), device="cpu", local_files_only=True)
        expected = reference.encode(list(TEXTS), normalize_embeddings=True)
        mine = np.array(found.floats())
        assert np.allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-5)
        assert (mine * expected).sum(axis=1).min() >= 0.9999
        assert found.prompt_tokens == sum(len(reference.tokenizer(text)["input_ids"]) for text in TEXTS)
        with pytest.raises(ContextTooLong) as caught:
            await engine.embed(Embed(model="minilm", inputs=("word " * 600, "short")))
        assert caught.value.limit == 512
        assert caught.value.tokens > 512
        health = await engine.health()
        assert health.running == 0
        assert health.progress == found.prompt_tokens
        assert not engine.profile.generate
        with pytest.raises(Exception, match="embedding model"):
            async for _ in engine.generate(Generation(model="minilm", prompt="x")):
                pass
    finally:
        await supervisor.close()


async def test_a_model_that_generates_gives_no_embeddings(supervise: Callable[[], Supervisor], tiny: Path) -> None:
    from pagoda.core.errors import Rejected

    supervisor = supervise()
    try:
        engine = await supervisor.load(local(tiny))
        with pytest.raises((InvalidRequest, Rejected), match="gives no embeddings"):
            await engine.embed(Embed(model="tiny", inputs=("x",)))
    finally:
        await supervisor.close()
