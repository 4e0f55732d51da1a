"""The fake engine process: scripted, seeded answers with delays and faults over the OpenAI API. Every answer says so.

A script is a JSON object. ``rules`` is a list tried in order: the first whose ``contains`` is in the prompt gives its
``text`` and its settings; without one the answer is ``fake`` and the prompt's words in a seeded order. Settings, in a
rule or for all: ``first_seconds``, ``token_seconds``, ``fault`` (``cut``, ``hang``, ``garbage``, ``error``, ``exit``
after ``fault_at`` tokens; ``status`` with ``status`` before any). ``slots``, for all, is how many requests are computed
at once, the others waiting in the order in which they came. Tokens are words with the space before them.
A rule with ``calls`` (each with ``name`` and ``arguments``, JSON text) answers a request that offers tools with them.
An assistant message that is to be continued gets what is missing of the answer, as does, with ``continues``, a prompt
that ends with the beginning of its ``text``; a ``stubborn`` engine says that it cannot continue messages.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import random
import re
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from pagoda.model.engines.lifeline import read_config, report

_VOCABULARY = 50_000
_MANY = 2**30


class FakeState:
    """The script and what the engine has done so far."""

    def __init__(self, script: Mapping[str, Any], context: int, dimensions: int) -> None:
        self.script = script
        self.context = context
        self.dimensions = dimensions
        self.running = 0
        self.progress = 0
        self.slots = asyncio.Semaphore(script.get("slots", _MANY))
        self.words: dict[int, str] = {}
        """Every piece that was tokenized here, by its id, so that it can be told again."""

    def settings(self, prompt: str) -> dict[str, Any]:
        """The script's settings under those of the first rule that matches."""
        for rule in self.script.get("rules", ()):
            if rule["contains"] in prompt:
                return {**self.script, **rule}
        return dict(self.script)


_KEY = web.AppKey("key", str)
_STATE = web.AppKey("state", FakeState)


def pieces(text: str) -> list[str]:
    """The fake tokenizer: words with the white space before them; joined they give the text again."""
    return re.findall(r"\s*\S+|\s+", text)


def token_id(piece: str) -> int:
    """A stable id for a piece."""
    return zlib.crc32(piece.encode()) % _VOCABULARY


def build_app(script: Mapping[str, Any], key: str, context: int = 4096, dimensions: int = 8) -> web.Application:
    """The fake engine as an application, for a process of its own or for a test's server."""
    app = web.Application(middlewares=[_require_key], client_max_size=64 * 1024 * 1024)
    app[_KEY] = key
    app[_STATE] = FakeState(script, context, dimensions)
    app.router.add_get("/health", _health)
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _generate)
    app.router.add_post("/v1/completions", _generate)
    app.router.add_post("/v1/embeddings", _embed)
    app.router.add_post("/tokenize", _tokenize)
    app.router.add_post("/detokenize", _detokenize)
    app.router.add_post("/score", _score)
    return app


@web.middleware
async def _require_key(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.headers.get("Authorization") != f"Bearer {request.app[_KEY]}":
        return web.json_response({"error": {"message": "Invalid API key", "code": 401}}, status=401)
    response: web.StreamResponse = await handler(request)
    return response


async def _health(request: web.Request) -> web.Response:
    state = request.app[_STATE]
    return web.json_response({"running": state.running, "waiting": 0, "progress": state.progress})


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})


def _prompt_of(body: Mapping[str, Any]) -> str:
    """What is to be answered, without the beginning of an answer that is to be continued."""
    if "messages" in body:
        asked = body["messages"][:-1] if body.get("continue_final_message") else body["messages"]
        return "\n".join(_content(message) for message in asked)
    prompt = body["prompt"]
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


def _begun(body: Mapping[str, Any], settings: Mapping[str, Any], answer: list[str]) -> int:
    """How many tokens of an answer the request holds already."""
    if body.get("continue_final_message"):
        told = _content(body["messages"][-1])
    elif settings.get("continues") and isinstance(body.get("prompt"), str):
        whole, prompt = "".join(answer), body["prompt"]
        told = next((whole[:end] for end in range(len(whole), 0, -1) if prompt.endswith(whole[:end])), "")
    else:
        return 0
    count = len(pieces(told))
    return count if "".join(answer[:count]) == told else 0


def _tokens_of(body: Mapping[str, Any]) -> list[str]:
    """The prompt's tokens, with those of an answer that is to be continued."""
    told = pieces(_content(body["messages"][-1])) if body.get("continue_final_message") else []
    return pieces(_prompt_of(body)) + told


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _answer(body: Mapping[str, Any], settings: Mapping[str, Any], prompt: str, index: int) -> list[str]:
    if "text" in settings:
        return pieces(settings["text"])
    if body.get("response_format"):
        return pieces('{"fake": true}')
    words = prompt.split()
    if body.get("temperature", 1.0) != 0:
        seed = body.get("seed")
        random.Random(f"{seed}/{index}" if seed is not None else None).shuffle(words)
    return pieces(" ".join(["fake", *words]))


async def _generate(request: web.Request) -> web.StreamResponse:
    state, body = request.app[_STATE], await request.json()
    prompt = _prompt_of(body)
    settings = state.settings(prompt)
    size = len(_tokens_of(body))
    if settings.get("fault") == "status":
        return web.json_response({"error": {"message": "scripted refusal"}}, status=settings["status"])
    if size >= state.context:
        message = f"This model's maximum context length is {state.context} tokens; the prompt has {size} tokens."
        return web.json_response({"error": {"message": message, "code": "context_length_exceeded"}}, status=400)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    state.running += 1
    try:
        async with state.slots:
            await asyncio.sleep(settings.get("first_seconds", 0))
            written = 0
            for index in range(body.get("n", 1)):
                written += await _write_choice(response, state, body, settings, index)
        usage = {"prompt_tokens": size, "completion_tokens": written, "total_tokens": size + written}
        await response.write(_frame({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
    finally:
        state.running -= 1
    return response


async def _write_choice(
    response: web.StreamResponse, state: FakeState, body: Mapping[str, Any], settings: Mapping[str, Any], index: int
) -> int:
    """Write one choice token by token, faults included; give the number of tokens."""
    if settings.get("calls") and body.get("tools"):
        return await _write_calls(response, settings["calls"], index, body.get("max_tokens"))
    whole = _answer(body, settings, _prompt_of(body), index)
    begun = _begun(body, settings, whole)
    tokens = whole[begun:]
    limit = body.get("max_tokens", len(tokens))
    reason = "length" if limit < len(tokens) else "stop"
    text = "".join(tokens[:limit])
    cuts = [(at, stop) for stop in body.get("stop", ()) if (at := text.find(stop)) >= 0]
    end, stopped = min(cuts, default=(len(text), None))
    if stopped is not None:
        reason = "stop"
    written = 0
    for place, token in enumerate(tokens[:limit]):
        if written >= end:
            tokens = tokens[:place]
            break
        if settings.get("fault") and place == settings.get("fault_at", 0):
            await _fail(response, settings["fault"])
        await response.write(_frame({"choices": [_choice(body, index, token, begun + place, end - written)]}))
        written += len(token)
        state.progress += 1
        if delay := settings.get("token_seconds", 0):
            await asyncio.sleep(delay)
    closing = _shape(body, index, "") | {"finish_reason": reason, "stop_reason": stopped}
    await response.write(_frame({"choices": [closing]}))
    return len(tokens[:limit])


async def _write_calls(
    response: web.StreamResponse, calls: Sequence[Mapping[str, str]], index: int, limit: int | None
) -> int:
    """Write tool calls, the arguments of each in two pieces, cut off after ``limit`` tokens; give their number."""
    written, reason = 0, "tool_calls"
    for place, call in enumerate(calls):
        tokens = pieces(call["arguments"])
        shown = tokens if limit is None else tokens[: limit - written]
        arguments, half = "".join(shown), len("".join(shown)) // 2
        head = {"index": place, "id": f"call-fake-{place}", "type": "function"}
        opening = head | {"function": {"name": call["name"], "arguments": arguments[:half]}}
        for piece in (opening, {"index": place, "function": {"arguments": arguments[half:]}}):
            told = {"index": index, "finish_reason": None, "delta": {"tool_calls": [piece]}}
            await response.write(_frame({"choices": [told]}))
        written += len(shown)
        if len(shown) < len(tokens):
            reason = "length"
            break
    await response.write(_frame({"choices": [{"index": index, "finish_reason": reason, "delta": {}}]}))
    return written


async def _fail(response: web.StreamResponse, fault: str) -> None:
    if fault == "hang":
        await asyncio.sleep(3600)
    if fault == "exit":
        os._exit(9)
    if fault == "garbage":
        await response.write(b"data: {not json\n\n")
    if fault == "error":
        await response.write(_frame({"error": {"message": "scripted failure", "code": 500}}))
    raise ConnectionResetError("scripted cut")


def _shape(body: Mapping[str, Any], index: int, text: str) -> dict[str, Any]:
    inner: dict[str, Any] = {"delta": {"content": text}} if "messages" in body else {"text": text}
    return {"index": index, "finish_reason": None, **inner}


def _choice(body: Mapping[str, Any], index: int, token: str, place: int, room: int) -> dict[str, Any]:
    """A frame with a token, of whose text only ``room`` characters are shown (a stop sequence may begin inside)."""
    choice = _shape(body, index, token[:room])
    asked = body.get("top_logprobs", 0) if body.get("logprobs") is True else body.get("logprobs")
    if asked is not None and asked is not False:
        own = _logprob(token, place)
        rivals = [own | {"token": f"rival{rank}", "logprob": own["logprob"] - 1 - rank} for rank in range(asked)]
        choice["logprobs"] = {"content": [own | {"top_logprobs": ([own, *rivals])[:asked]}]}
    return choice


def _logprob(token: str, place: int) -> dict[str, Any]:
    return {"token": token, "bytes": list(token.encode()), "logprob": -0.1 * (place % 10 + 1)}


def _frame(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps({"model": "fake", "system_fingerprint": "fake", **payload}) + b"\n\n"


async def _embed(request: web.Request) -> web.Response:
    state, body = request.app[_STATE], await request.json()
    inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
    rows, size = [], 0
    for index, item in enumerate(inputs):
        text = item if isinstance(item, str) else " ".join(map(str, item))
        size += len(pieces(text))
        draw = random.Random(text)
        numbers = [draw.gauss(0, 1) for _ in range(state.dimensions)]
        length = math.sqrt(sum(number * number for number in numbers))
        vector = array("f", (number / length for number in numbers)).tobytes()
        rows.append({"index": index, "embedding": base64.b64encode(vector).decode()})
    state.progress += size
    return web.json_response({"data": rows, "usage": {"prompt_tokens": size, "total_tokens": size}})


async def _tokenize(request: web.Request) -> web.Response:
    found = _tokens_of(await request.json())
    ids = [token_id(piece) for piece in found]
    request.app[_STATE].words.update(zip(ids, found, strict=True))
    return web.json_response({"tokens": ids, "pieces": found})


async def _detokenize(request: web.Request) -> web.Response:
    """The text of ids; one that was never tokenized here has none but its number."""
    words = request.app[_STATE].words
    ids = (await request.json())["tokens"]
    return web.json_response({"content": "".join(words.get(number, f" #{number}") for number in ids)})


async def _score(request: web.Request) -> web.Response:
    body = await request.json()
    tokens = [_logprob(piece, place) for place, piece in enumerate(pieces(body["text"]))]
    return web.json_response({"tokens": tokens, "prompt_tokens": len(pieces(body["context"] + body["text"]))})


async def serve(config: Mapping[str, Any]) -> None:
    """Serve on a free loopback port until cancelled."""
    if config["script"].get("start_error"):
        report(error=config["script"]["start_error"])
        sys.exit(1)
    await asyncio.sleep(config["script"].get("start_seconds", 0))
    app = build_app(config["script"], config["key"], config["context"], config["dimensions"])
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    report(url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(read_config()))
