"""What the common tongue makes of schemas and of an engine's refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp
import pytest

from pagoda.core.errors import ContextTooLong, ModelTimeout, Overloaded, Rejected, Unavailable
from pagoda.core.types import Embed
from pagoda.model.catalog.entry import EmbeddingForm, LocalPath, ModelEntry, RemoteAddress
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import Profile, Room
from pagoda.model.engines.openai import OpenAIEngine
from pagoda.model.engines.schema import keywords
from tests.services import free_port

ROOM = Room(threads=1, parallel=1, context=0)
FORM = EmbeddingForm(query_prefix="query: ", passage_prefix="passage: ", normal_form="NFKC")
MODEL = ModelEntry(
    id="far",
    task="embedding",
    engine="remote",
    source=RemoteAddress(url="http://127.0.0.1:9", model="far"),
    embedding=FORM,
)


@pytest.mark.parametrize(
    ("schema", "used", "unused"),
    [
        (
            {"type": "object", "properties": {"format": {"type": "integer", "multipleOf": 2}}},
            {"multipleOf"},
            {"format"},
        ),
        ({"enum": [{"not": 1}]}, {"enum"}, {"not"}),
        ({"anyOf": [{"contains": {}}]}, {"anyOf", "contains"}, set()),
        ({"$defs": {"if": {"uniqueItems": True}}}, {"uniqueItems"}, {"if"}),
    ],
)
def test_keywords_are_found_at_any_depth_and_names_are_not_keywords(
    schema: dict[str, Any], used: set[str], unused: set[str]
) -> None:
    found = keywords(schema)
    assert used <= found
    assert not unused & found


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "no"}, Rejected),
        (404, {"message": "no"}, Rejected),
        (401, {"message": "bad key"}, Unavailable),
        (408, {}, ModelTimeout),
        (429, {}, Overloaded),
        (500, {}, Unavailable),
        (503, {}, Unavailable),
        (504, {}, ModelTimeout),
    ],
)
async def test_refusals_become_our_errors(status: int, error: dict[str, Any], kind: type[Exception]) -> None:
    engine = OpenAIEngine(MODEL, "http://127.0.0.1:9", "", ROOM, Profile())
    try:
        translated = engine.translate(status, error)
    finally:
        await engine.close()
    assert type(translated) is kind
    assert translated.retryable == (status in (408, 429, 500, 503, 504))


async def test_a_context_that_is_too_long_keeps_its_numbers_over_the_wire() -> None:
    engine = OpenAIEngine(MODEL, "http://127.0.0.1:9", "", ROOM, Profile())
    try:
        said = ContextTooLong(9000, 4096)
        translated = engine.translate(400, {"message": said.message, "code": said.code})
    finally:
        await engine.close()
    assert isinstance(translated, ContextTooLong)
    assert (translated.tokens, translated.limit) == (9000, 4096)


async def test_prefixes_and_normal_form_are_applied_once_and_token_ids_stay_untouched() -> None:
    engine = OpenAIEngine(MODEL, "http://127.0.0.1:9", "", ROOM, Profile(embed=True))
    try:
        bodies = [
            engine.embedding_body(Embed(model="far", inputs=("ﬁn", (1, 2)), kind=kind))["input"]
            for kind in ("raw", "query", "passage")
        ]
    finally:
        await engine.close()
    assert bodies == [["fin", [1, 2]], ["query: fin", [1, 2]], ["passage: fin", [1, 2]]]


async def test_an_address_that_nobody_serves_is_unavailable() -> None:
    engine = OpenAIEngine(MODEL, "http://127.0.0.1:9", "", ROOM, Profile(embed=True))
    try:
        with pytest.raises(Unavailable, match="far cannot be reached"):
            await engine.embed(Embed(model="far", inputs=("x",)))
    finally:
        await engine.close()


@pytest.mark.parametrize("kind", ["llamacpp", "transformers", "vllm"])
async def test_a_server_that_dies_before_it_was_spoken_to_leaves_no_connection(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[aiohttp.ClientSession] = []
    begin = aiohttp.ClientSession.__init__

    def noted(self: aiohttp.ClientSession, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        opened.append(self)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", noted)
    model = dataclasses.replace(MODEL, engine=kind, source=LocalPath(path="gone"))
    with pytest.raises(Unavailable):
        await engine_kind(kind).connect(model, f"http://127.0.0.1:{free_port()}", "key", ROOM)
    assert [session.closed for session in opened] == [True]
