"""The short way to a model route answers what the framework's way answers."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Message

from pagoda.core.settings import Settings
from pagoda.interface.express import body_of
from pagoda.interface.sse import ClientGone
from tests.services import fake_model, running

CHAT = {"messages": [{"role": "user", "content": "hi"}], "seed": 1}
BODIES: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "completion": ("/v1/completions", {"prompt": "once", "seed": 1}),
    "embedding": ("/v1/embeddings", {"input": "text"}),
    "response": ("/v1/responses", {"input": "hi"}),
    "message": ("/v1/messages", {"model": "fake-chat", "max_tokens": 5, "messages": CHAT["messages"]}),
    "generate": ("/generate", {"prompt": "once"}),
    "an unknown parameter": ("/v1/chat/completions", {**CHAT, "wings": 2}),
    "a parameter of the wrong type": ("/v1/chat/completions", {**CHAT, "max_tokens": "many"}),
    "nothing asked": ("/v1/completions", {}),
    "an unknown model": ("/v1/chat/completions", {**CHAT, "model": "nobody"}),
    "a wrong form of a message": ("/v1/messages", {"model": "fake-chat", "messages": [{"role": "ghost"}]}),
    "a list": ("/v1/chat/completions", []),
    "null": ("/v1/embeddings", None),
    "broken JSON": ("/v1/chat/completions", b'{"messages": '),
    "a number that is none": ("/v1/chat/completions", b'{"temperature": NaN}'),
    "nothing": ("/v1/chat/completions", b""),
    "a lone surrogate": ("/v1/completions", b'{"prompt": "\\ud800"}'),
}
GOOD = ("chat", "completion", "embedding", "response", "message", "generate")
OWN = ("id", "created", "created_at", "completed_at", "request_id")


def without_own(value: Any) -> Any:
    """An answer without what is new in each."""
    if isinstance(value, dict):
        return {key: without_own(each) for key, each in value.items() if key not in OWN}
    return [without_own(each) for each in value] if isinstance(value, list) else value


async def test_both_ways_answer_the_same(settings: Settings) -> None:
    models = [fake_model(text="hello there"), fake_model("fake-embed", task="embedding")]
    async with running(settings, models) as service:
        for name, (path, body) in BODIES.items():
            answers = []
            for kind in ("application/json", "application/vnd.any+json"):  # the framework's way takes both
                given = {"data": body} if isinstance(body, bytes) else {"json": body}
                headers = {"Content-Type": kind, "Cache-Control": "no-store"}
                async with service.session.post(service.url + path, headers=headers, **given) as response:
                    answers.append((response.status, response.content_type, without_own(await response.json())))
            assert answers[0] == answers[1], name
            assert (answers[0][0] == 200) == (name in GOOD), name


async def test_a_body_is_read_in_all_its_parts_and_a_client_that_leaves_in_it_is_gone() -> None:
    parts: list[Message] = [
        {"type": "http.request", "body": b"one ", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"two"},
    ]

    async def receive() -> Message:
        return coming.pop(0)

    coming = list(parts)
    assert await body_of(receive) == b"one two"
    coming = [parts[0], {"type": "http.disconnect"}]
    with pytest.raises(ClientGone):
        await body_of(receive)
