"""The HTTP face of the transformers engine: OpenAI's forms, and a few of llama.cpp's for tokens and templates."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Delta, TokenLogprob
from pagoda.model.engines.child_http import open_app
from pagoda.model.engines.transformers_child.host import Host
from pagoda.model.engines.transformers_child.job import Draw, Ended, Job
from pagoda.model.engines.transformers_child.text import Writer

_HOST = web.AppKey("host", Host)
_NUMBERS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")


def build_app(host: Host, key: str) -> web.Application:
    """The engine as an application."""
    app = open_app(host, key)
    app[_HOST] = host
    app.router.add_get("/health", _health)
    app.router.add_post("/v1/chat/completions", _generate)
    app.router.add_post("/v1/completions", _generate)
    app.router.add_post("/apply-template", _apply_template)
    app.router.add_post("/score", _score)
    app.router.add_post("/adapters", _load_adapter)
    return app


# -- generation -------------------------------------------------------------------------------------------------------


async def _generate(request: web.Request) -> web.StreamResponse:
    """Stream one frame for each step's text; leaving cancels every choice."""
    host, body = request.app[_HOST], await request.json(loads=orjson.loads)
    if host.embeds:
        raise InvalidRequest("This is an embedding model; it generates no text.", param="model")
    jobs = await asyncio.to_thread(_jobs, host, body)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    answer = _Answer(host, body, jobs)
    try:
        for job in jobs:
            host.batch.submit(job)
        await answer.stream(response)
    finally:
        for job in jobs:
            host.batch.cancel(job)
    return response


def _jobs(host: Host, body: Mapping[str, Any]) -> list[Job]:
    """The choices of a request."""
    if "messages" in body:
        ids = host.chat_ids(body["messages"], continue_final=bool(body.get("continue_final_message")))
        top = body.get("top_logprobs", 0) if body.get("logprobs") else None
    else:
        prompt = body["prompt"]
        ids = host.encode(prompt, special=True) if isinstance(prompt, str) else list(prompt)
        top = body.get("logprobs")
    if not ids:
        raise InvalidRequest(
            "The prompt is empty, and this model needs at least one token to begin with.", param="prompt"
        )
    rows = host.vocabulary.size
    if wrong := [id for id in ids if not 0 <= id < rows]:
        raise InvalidRequest(f"The prompt's token {wrong[0]} is not one of the model's {rows}.", param="prompt")
    host.fit(ids)
    draw = Draw(
        **{name: float(body[name]) for name in _NUMBERS if body.get(name) is not None},
        top_k=int(body.get("top_k") or 0),
        logit_bias=tuple((int(id), float(bias)) for id, bias in (body.get("logit_bias") or {}).items()),
        top_logprobs=None if top is None else int(top),
    )
    adapter = host.adapters.check(str(body.get("adapter") or ""))
    seed = body.get("seed")
    schema = _schema(body.get("response_format"))
    return [
        Job(
            prompt=ids,
            limit=min(int(body.get("max_tokens") or host.context), host.context - len(ids)),
            draw=draw,
            ends=host.ends,
            seed=None if seed is None else f"{seed}/{index}",
            adapter=adapter,
            constraint=None if schema is None else host.vocabulary.constrain(schema),
        )
        for index in range(int(body.get("n") or 1))
    ]


def _schema(form: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if form is None:
        return None
    if form["type"] == "json_object":
        return {"type": "object"}
    schema: Mapping[str, Any] | None = form["json_schema"].get("schema")
    return schema if schema is not None else {"type": "object"}


class _Answer:
    """The choices of one request, read as they are written, and sent."""

    def __init__(self, host: Host, body: Mapping[str, Any], jobs: list[Job]) -> None:
        self._host = host
        self._chat = "messages" in body
        self._jobs = jobs
        stops = tuple(body.get("stop") or ())
        self._writers = [Writer(index, stops, host.vocabulary.bytes_of) for index in range(len(jobs))]
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def stream(self, response: web.StreamResponse) -> None:
        """Send all choices and the usage."""
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(self._read(index)) for index in range(len(self._jobs))]
            group.create_task(self._close_after(readers))
            while (frame := await self._frames.get()) is not None:
                parts = [frame]
                while not self._frames.empty() and (more := self._frames.get_nowait()) is not None:
                    parts.append(more)
                    frame = more
                await response.write(b"".join(parts))
                if self._frames.empty() and all(reader.done() for reader in readers):
                    break
        await response.write(_frame({"choices": [], "usage": self._usage()}) + b"data: [DONE]\n\n")

    async def _close_after(self, readers: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(readers)
        self._frames.put_nowait(None)

    async def _read(self, index: int) -> None:
        job, writer = self._jobs[index], self._writers[index]
        while True:
            event = await job.events.get()
            if isinstance(event, Ended):
                self._end(index, event)
                return
            if event.id in job.ends:
                continue
            if (delta := writer.write(event)) is not None:
                self._send(delta)
            if writer.stopped:
                self._host.batch.cancel(job)
                self._finish(index, "stop", writer.stop)
                return

    def _end(self, index: int, event: Ended) -> None:
        if event.error:
            self._frames.put_nowait(_frame({"error": {"message": event.error, "code": 500}}))
            return
        if (rest := self._writers[index].end()) is not None:
            self._send(rest)
        self._finish(index, event.reason)

    def _send(self, delta: Delta) -> None:
        choice: dict[str, Any] = {"index": delta.index, "finish_reason": None}
        choice |= {"delta": {"content": delta.text}} if self._chat else {"text": delta.text}
        if delta.logprobs:
            choice["logprobs"] = {"content": [_token(token) for token in delta.logprobs]}
        self._frames.put_nowait(_frame({"choices": [choice]}))

    def _finish(self, index: int, reason: str, stop: str | None = None) -> None:
        inner: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        if stop is not None:
            inner["stop_reason"] = stop
        self._frames.put_nowait(_frame({"choices": [{"index": index, "finish_reason": reason, **inner}]}))

    def _usage(self) -> dict[str, Any]:
        prompt, written = len(self._jobs[0].prompt), sum(len(job.written) for job in self._jobs)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": self._jobs[0].cached},
        }


def _token(token: TokenLogprob) -> dict[str, Any]:
    rivals = [_token(rival) for rival in token.top]
    body: dict[str, Any] = {"token": token.token, "logprob": token.logprob, "bytes": token.bytes, "id": token.id}
    return body | {"top_logprobs": rivals}


def _frame(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


# -- the other verbs --------------------------------------------------------------------------------------------------


async def _health(request: web.Request) -> web.Response:
    host = request.app[_HOST]
    if host.embeds:
        return web.json_response({"running": host.busy, "waiting": 0, "progress": host.served, "context": host.context})
    batch = host.batch
    return web.json_response(
        {
            "running": batch.running,
            "waiting": batch.waiting,
            "progress": batch.progress + host.served,
            "context": host.context,
            "kv_used": batch.kv_used,
        }
    )


async def _apply_template(request: web.Request) -> web.Response:
    host, body = request.app[_HOST], await request.json(loads=orjson.loads)
    prompt = host.chat_text(body["messages"], continue_final=bool(body.get("continue_final")))
    return web.json_response({"prompt": prompt})


async def _score(request: web.Request) -> web.Response:
    """Log-probabilities of ``text`` after ``context``, by one forward pass over both."""
    host, body = request.app[_HOST], await request.json(loads=orjson.loads)
    before = host.encode(body["context"], special=True)
    ids = host.encode(body["context"] + body["text"], special=True)
    shared = 0
    while shared < min(len(before), len(ids)) and before[shared] == ids[shared]:
        shared += 1
    shared = min(shared, len(ids) - 1)
    if shared <= 0:
        raise InvalidRequest("Scoring needs a context of at least one token.", param="context")
    host.fit(ids)
    adapter = host.adapters.check(str(body.get("adapter") or ""))
    tokens = await asyncio.to_thread(host.score_ids, ids, len(ids) - shared, adapter)
    return web.json_response({"tokens": [_token(token) for token in tokens], "prompt_tokens": len(ids)})


async def _load_adapter(request: web.Request) -> web.Response:
    host, body = request.app[_HOST], await request.json(loads=orjson.loads)
    if host.embeds:
        raise InvalidRequest("An embedding model takes no adapters.", param="model")
    await asyncio.to_thread(host.load_adapter, body["name"], body["path"])
    return web.json_response({"name": body["name"]})


async def watch(host: Host) -> None:
    """End the process when the generation thread has died: whoever waits is told, and the supervisor starts anew."""
    while not host.embeds:
        await asyncio.sleep(0.5)
        if host.batch.fault:
            sys.stderr.write(f"the generation thread ended: {host.batch.fault}\n")
            await asyncio.sleep(0.5)  # its requests have been failed; their last frames are on the way
            os._exit(1)
