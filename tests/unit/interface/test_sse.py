"""Streams of frames: what is there already leaves together, what comes live leaves as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message

from pagoda.core.errors import Unavailable
from pagoda.interface.sse import EventStream

FRAMES = [f"data: {number}\n\n".encode() for number in range(50)]


class Client:
    """What a client gets, write by write; a slow one has room only when it is told so."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.ended = False
        self.room = asyncio.Event()
        self.room.set()
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(0)
            await self.room.wait()
            self.writes.append(message["body"])
            self.ended = not message["more_body"]

    async def read(self, stream: EventStream) -> bytes:
        await stream({"type": "http"}, self.receive, self.send)
        assert self.ended
        return b"".join(self.writes)


async def ready(frames: list[bytes], error: Exception | None = None) -> AsyncIterator[bytes]:
    for each in frames:
        yield each
    if error is not None:
        raise error


async def test_a_replayed_answer_leaves_in_one_write() -> None:
    client = Client()
    assert await client.read(EventStream(ready(FRAMES), 60, replayed=True)) == b"".join(FRAMES)
    assert len(client.writes) == 1


async def test_a_live_answer_leaves_frame_by_frame() -> None:
    client = Client()
    assert await client.read(EventStream(ready(FRAMES), 60)) == b"".join(FRAMES)
    assert client.writes == [*FRAMES, b""]


async def test_an_error_comes_after_all_that_was_there() -> None:
    client = Client()
    said = await client.read(EventStream(ready(FRAMES, Unavailable("gone")), 60, replayed=True))
    assert said.startswith(b"".join(FRAMES))
    assert b'"message":"gone"' in said[len(b"".join(FRAMES)) :]


async def test_a_long_replay_waits_for_its_client_and_ends_when_it_leaves() -> None:
    client, made = Client(), 0
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        try:
            while True:
                made += 1
                yield b"x" * 1000
        finally:
            closed.set()

    client.room.clear()
    stream = EventStream(endless(), 60, replayed=True)
    serving = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
    for _ in range(10):
        await asyncio.sleep(0)
    assert 0 < made <= 33, "it is not read further than one write"
    client.room.set()
    client.gone.set()
    await serving
    assert closed.is_set()
    assert not client.ended
    assert all(len(each) <= 33_000 for each in client.writes)


async def test_silence_in_a_replay_is_filled_after_what_was_there() -> None:
    """What checks answers may wait, even where the answer itself is there."""
    client, go_on = Client(), asyncio.Event()

    async def checked() -> AsyncIterator[bytes]:
        yield b"data: before\n\n"
        await go_on.wait()
        yield b"data: after\n\n"

    reading = asyncio.create_task(client.read(EventStream(checked(), 0.01, replayed=True)))
    while not client.writes:
        await asyncio.sleep(0.005)
    go_on.set()
    said = await reading
    assert said.startswith(b"data: before\n\n: keep-alive\n\n")
    assert said.endswith(b"data: after\n\n")
