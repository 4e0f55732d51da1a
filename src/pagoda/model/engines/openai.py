"""Speaking the OpenAI HTTP API to an engine: the common tongue, which each kind's dialect overrides where it differs.

Every generation is streamed from the engine, whether or not the client streams: so cancelling, progress and failure in
mid-answer have one code path. A closed iterator closes the connection, which is what makes an engine stop computing.
"""

from __future__ import annotations

import base64
import binascii
import re
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from pagoda.core.errors import (
    ContextTooLong,
    InvalidRequest,
    ModelError,
    ModelTimeout,
    Overloaded,
    Rejected,
    Unavailable,
)
from pagoda.core.types import (
    CallDelta,
    Delta,
    Detokenize,
    Embed,
    Embeddings,
    Event,
    Finish,
    Generation,
    Score,
    Scores,
    Started,
    Text,
    Tokenize,
    Tokens,
    Toolset,
    Usage,
)
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines.contract import Drawn, Health, Profile, Room, Vitals
from pagoda.model.engines.exposition import totals
from pagoda.model.engines.logprobs import token_logprobs
from pagoda.model.engines.schema import keywords
from pagoda.model.engines.transport import Frames, Posted, first_line

_CONNECT_SECONDS = 10.0
UNREACHABLE = "engine_unreachable"
"""Code of the error of a request that no engine has taken."""
STOPPED = "engine_stopped"
"""Code of the error of a request that was lost with its connection."""

NEUTRAL_SAMPLING = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""OpenAI's defaults, for engines that would else apply their own."""


@dataclass(slots=True)
class Reading:
    """What has been read of one answer so far."""

    choices: int
    usage: Usage = Usage(0, 0)
    deltas: int = 0
    finished: set[int] = field(default_factory=set)
    drawn: Drawn | None = None


class OpenAIEngine:
    """A running engine behind ``url`` (which ends before ``/chat/completions``)."""

    kind = "openai"
    keeps_streams = True
    """Whether a connection can serve another request after a stream."""

    def __init__(self, model: ModelEntry, url: str, key: str, room: Room, profile: Profile) -> None:
        self.model = model
        self.profile = profile
        self.context = model.context
        self.remote_name = model.id
        self.url = url.rstrip("/")
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0),
            cookie_jar=aiohttp.DummyCookieJar(),  # what a server tells one caller is not for the next
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=room.silence_seconds),
            read_bufsize=2**18,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()

    async def ask_about_itself(self, address: str) -> dict[str, Any]:
        """What a server that has just started says at ``address``; without an answer nobody will close us but we."""
        try:
            return await self.request_json("GET", address)
        except BaseException:
            await self.close()
            raise

    # -- generation ---------------------------------------------------------------------------------------------------

    def generate(self, request: Generation, drawn: Drawn | None = None) -> AsyncIterator[Event]:
        """Stream an answer. Raises ``ModelError`` when the engine refuses, fails or falls silent."""
        return self.stream(request, Reading(choices=request.n, drawn=drawn))

    async def stream(self, request: Generation, reading: Reading) -> AsyncIterator[Event]:
        """The answer as the engine gives it; ``reading`` tells at any time what has come so far."""
        path, body = await self.generation_body(request)
        async with self.post(path, body) as response:
            yield Started(self.model.id, self.kind, self.warnings(request))
            frames = Frames()
            async for block in response.content.iter_any():
                for payload in frames.feed(block):
                    for event in list(self.read_chunk(payload, request, reading)):  # to its end: usage is up to date
                        if reading.drawn is not None and isinstance(event, Delta):
                            reading.drawn(event.text)
                        yield event
                if frames.over:
                    break
        if len(reading.finished) < request.n:
            raise Unavailable(f"The engine of {self.model.id} stopped in mid-answer; ask again.", code=STOPPED)
        yield reading.usage

    async def generation_body(self, request: Generation) -> tuple[str, dict[str, Any]]:
        """Path and JSON body for a generation."""
        body: dict[str, Any] = {
            "model": self.remote_name,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.sampling_body(request),
        }
        if request.n != 1:
            body["n"] = request.n
        if request.stop:
            body["stop"] = list(request.stop)
        if (length := self.length(request)) is not None:
            body["max_tokens"] = length
        if request.output is not None:
            body["response_format"] = _response_format(request)
        if request.messages is None:
            body["prompt"] = request.prompt if isinstance(request.prompt, str) else list(request.prompt or ())
            if request.top_logprobs is not None:
                body["logprobs"] = request.top_logprobs
            return "/completions", body
        body["messages"] = list(request.messages)
        if request.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.continue_final:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if request.toolset is not None:
            body |= _tools_body(request.toolset)
        return "/chat/completions", body

    def sampling_body(self, request: Generation) -> dict[str, Any]:
        """Sampling parameters: only those the caller gave, since a remote model's defaults are its own."""
        sampling = request.sampling
        names = ("temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty")
        body = {name: value for name in names if (value := getattr(sampling, name)) is not None}
        if sampling.repetition_penalty is not None:
            body["repetition_penalty"] = sampling.repetition_penalty
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
        return body

    def length(self, request: Generation) -> int | None:
        """New tokens at most, to be sent; ``None`` leaves it out."""
        return request.max_tokens

    def warnings(self, request: Generation) -> tuple[str, ...]:
        """What the caller should know about this answer before it begins."""
        if request.output is None or request.output.schema is None:
            return ()
        loose = sorted(self.profile.unenforced_keywords & keywords(request.output.schema))
        if not loose:
            return ()
        return (f"Checked after the answer, not enforced while it is written: the schema's {', '.join(loose)}.",)

    def read_chunk(self, payload: dict[str, Any], request: Generation, reading: Reading) -> Iterator[Event]:
        """The events of one frame of the engine's stream."""
        if error := payload.get("error"):
            raise self.translate(int(error["code"]) if str(error.get("code")).isdigit() else 500, error)
        for choice in payload.get("choices") or ():
            index = choice.get("index", 0)
            delta = choice.get("delta") or {}
            text = (choice.get("text") if "text" in choice else delta.get("content")) or ""
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            logprobs = token_logprobs(choice.get("logprobs"), request.top_logprobs)
            if text or reasoning or logprobs:
                reading.deltas += 1
                yield Delta(index, text, logprobs, reasoning)
            for piece in delta.get("tool_calls") or ():
                reading.deltas += 1
                function = piece.get("function") or {}
                told = (function.get("arguments") or "", piece.get("id") or "", function.get("name") or "")
                yield CallDelta(index, piece.get("index", 0), *told)
            if (reason := choice.get("finish_reason")) and index not in reading.finished:
                reading.finished.add(index)
                stop = choice.get("stop_reason")  # vLLM's word; Pagoda's own engines say it too
                yield Finish(
                    index,
                    reason if reason in ("length", "tool_calls", "content_filter") else "stop",
                    stop if isinstance(stop, str) else None,
                )
        self.read_usage(payload, reading)

    def read_usage(self, payload: dict[str, Any], reading: Reading) -> None:
        """Take over the usage of a frame; without any, every frame with text counts as one token."""
        usage = payload.get("usage")
        if usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            reading.usage = Usage(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), cached)
        elif not reading.usage.prompt_tokens and reading.deltas != reading.usage.completion_tokens:
            reading.usage = Usage(0, reading.deltas)

    # -- the other verbs ----------------------------------------------------------------------------------------------

    async def embed(self, request: Embed) -> Embeddings:
        """Vectors for the inputs, in their order."""
        payload = await self.post_json("/embeddings", self.embedding_body(request))
        rows = sorted(payload["data"], key=lambda row: row["index"])
        wanted = len(request.inputs)
        if len(rows) != wanted:
            raise Unavailable(f"The engine of {self.model.id} gave {len(rows)} vectors for {wanted} texts.")
        vectors = tuple(_vector(row["embedding"]) for row in rows)
        return Embeddings(
            model=self.model.id,
            vectors=vectors,
            dimensions=len(vectors[0]) // 4,
            prompt_tokens=(payload.get("usage") or {}).get("prompt_tokens", 0),
            engine=self.kind,
        )

    def embedding_body(self, request: Embed) -> dict[str, Any]:
        """JSON body for embeddings; the one place where texts get the prefix and normal form of their model."""
        form = self.model.embedding
        inputs = [form.prepare(item, request.kind) if isinstance(item, str) else list(item) for item in request.inputs]
        body: dict[str, Any] = {"model": self.remote_name, "input": inputs, "encoding_format": "base64"}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        return body

    async def score(self, request: Score) -> Scores:
        """Not part of the OpenAI API."""
        raise InvalidRequest(
            f"{self.model.id} cannot score given text: its address has no such function.", param="model"
        )

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Not part of the OpenAI API."""
        raise InvalidRequest(f"{self.model.id} cannot tokenize: its address has no such function.", param="model")

    async def adopt(self, adapter: ModelEntry) -> None:
        """Not part of the OpenAI API."""
        raise InvalidRequest(
            f"{adapter.id} is an adapter, and the engine {self.kind} of its base {self.model.id} takes none.",
            param="model",
        )

    async def detokenize(self, request: Detokenize) -> Text:
        """Not part of the OpenAI API."""
        raise InvalidRequest(f"{self.model.id} cannot detokenize: its address has no such function.", param="model")

    async def health(self) -> Health:
        """Whether the address answers; an OpenAI address says nothing of its work."""
        await self.request_json("GET", "/models")
        return Health(alive=True, running=0, waiting=0, progress=0, counted=False)

    async def vitals(self) -> Vitals | None:
        """As far as its health tells."""
        health = await self.health()
        return Vitals(health.running, health.waiting) if health.counted else None

    async def read_metrics(self) -> Mapping[str, float]:
        """What the server counts, where it serves Prometheus metrics beside its API."""
        async with self.post(self.url.removesuffix("/v1") + "/metrics", {}, "GET") as response:
            return totals((await response.read()).decode("utf-8", "replace"))

    # -- transport ----------------------------------------------------------------------------------------------------

    def post(self, path: str, body: Mapping[str, Any], method: str = "POST") -> Posted:
        """A block with an answered request of status 200; closed for good when it is left before the answer's end."""
        url = path if path.startswith("http") else self.url + path
        headers, data = {}, None
        if method == "POST":
            headers = {"Content-Type": "application/json"}
            data = aiohttp.BytesPayload(orjson.dumps(body, default=dict))  # bare bytes would be looked up in a registry
        if body.get("stream") and not self.keeps_streams:
            headers["Connection"] = "close"
        asking = self.session.request(method, url, data=data, headers=headers)
        return Posted(self.translate, self.failure, asking)

    def failure(self, error: BaseException) -> ModelError | None:
        """A failure of the transport as one of our errors; ``None`` when it is none."""
        match error:
            case TimeoutError():
                return ModelTimeout(f"The engine of {self.model.id} was silent for too long.")
            case aiohttp.ClientConnectorError():  # the request was not taken: asking again cannot do it twice
                said = f"The engine of {self.model.id} cannot be reached ({first_line(error)})."
                return Unavailable(said, code=UNREACHABLE)
            case aiohttp.ClientError():
                said = f"The engine of {self.model.id} stopped in mid-answer ({first_line(error)}); ask again."
                return Unavailable(said, code=STOPPED)
        return None

    async def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST and give the JSON answer."""
        return await self.request_json("POST", path, body)

    async def request_json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask and give the JSON answer. Raises ``Unavailable`` when it is none."""
        async with self.post(path, body or {}, method) as response:
            raw = await response.read()
        try:
            payload: dict[str, Any] = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Unavailable(f"The engine of {self.model.id} answered something that is not JSON.") from error
        return payload

    def translate(self, status: int, error: Mapping[str, Any]) -> ModelError:
        """The engine's refusal as one of our errors."""
        said = str(error.get("message") or f"status {status}")
        if error.get("code") == "context_length_exceeded":
            numbers = [int(number) for number in re.findall(r"\d+", said)]
            if len(numbers) == 2:
                return ContextTooLong(max(numbers), min(numbers))
        if status in (401, 403):
            return Unavailable(
                f"The address of {self.model.id} refuses its key: {said}", code="upstream_unauthorized", retryable=False
            )
        if status == 429:
            return Overloaded(f"{self.model.id} takes no more requests now: {said}")
        if status in {408, 504}:
            return ModelTimeout(f"{self.model.id} gave no answer in time: {said}")
        if status >= 500:
            return Unavailable(f"The engine of {self.model.id} failed: {said}")
        return Rejected(f"{self.model.id} refused the request: {said}", param=error.get("param"))


def _response_format(request: Generation) -> dict[str, Any]:
    output = request.output
    if output is None or output.kind == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": output.name, "schema": output.schema, "strict": True}}


def _tools_body(toolset: Toolset) -> dict[str, Any]:
    """The parameters that tell of tools."""
    if not toolset.tools:
        return {}
    choice: Any = toolset.mode
    if toolset.only is not None:
        choice = {"type": "function", "function": {"name": toolset.only}}
    tools = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in toolset.tools
    ]
    body = {"tools": tools, "tool_choice": choice}
    return body if toolset.parallel else body | {"parallel_tool_calls": False}


def _vector(value: Any) -> bytes:
    """An embedding as float32 bytes, from base64 or from a list of numbers."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise Unavailable("The engine sent an embedding that is not base64.") from error
    return array("f", value).tobytes()
