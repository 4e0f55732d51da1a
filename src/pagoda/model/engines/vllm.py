"""vLLM, the engine for production GPUs: Hugging Face checkpoints and LoRA adapters behind its own OpenAI server.

What its dialect needs was read in version 0.24: its server takes nearly every parameter by the names used here, mixes
greedy and sampled requests freely, and counts usage over all choices; a given text is scored by the log-probabilities
of its prompt. Its own key guards only ``/v1``, so that every path is guarded by ``vllm_key`` instead.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pagoda.core.errors import ContextTooLong, InvalidRequest, ModelError, Rejected, Unavailable
from pagoda.core.types import (
    Delta,
    Detokenize,
    Event,
    Finish,
    Generation,
    Score,
    Scores,
    Text,
    Tokenize,
    TokenLogprob,
    Tokens,
    Usage,
)
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines.contract import Drawn, Footprint, Health, LaunchPlan, Memory, Profile, Room, Vitals
from pagoda.model.engines.exposition import vllm_health, vllm_vitals
from pagoda.model.engines.openai import NEUTRAL_SAMPLING, OpenAIEngine

_OVERHEAD_BYTES = 6 * 1024**3
"""Of the host: the server, the engine core, and CUDA's libraries in both."""
_ACTIVATION_BYTES = 4 * 1024**3
"""Of the GPU: activations, CUDA graphs and the context of CUDA itself."""
_ASLEEP_BYTES = 2 * 1024**3
"""Of the GPU while it sleeps: the context of CUDA, its libraries and its graphs; what is measured corrects it."""
_LARGEST_DEFAULT_CONTEXT = 32_768
_STOP_SECONDS = 25.0
_TOP_LOGPROBS = 20
_LOOSE = frozenset(
    {"uniqueItems", "not", "if", "contains", "minContains", "maxContains", "propertyNames", "oneOf", "format"}
    | {"dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"}
)
"""Which of its two grammar engines enforces a keyword is not known beforehand; what either leaves out is checked."""


class Vllm:
    """Launches ``vllm_child``, which runs vLLM's server, and speaks to it."""

    name = "vllm"
    runs = "process"
    parallel = 256

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """Weights as the files' size, keys and values as far as the GPU has room for them, and what CUDA takes."""
        checkpoint = _checkpoint(model, path)
        weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
        return Memory(
            weights=weights + _ACTIVATION_BYTES,
            kv_cache=_kv_bytes(model, checkpoint, room, weights),
            overhead=_OVERHEAD_BYTES,
            on_gpu=True,
            asleep=Footprint(host=_OVERHEAD_BYTES + weights, gpu=_ASLEEP_BYTES) if room.vllm_sleep else None,
        )

    def capacity(self, model: ModelEntry, room: Room) -> int:
        """The requests of one batch."""
        del model
        return room.parallel

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """Start vLLM on the checkpoint with the memory that was counted for it."""
        checkpoint = _checkpoint(model, path)
        weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
        arguments = [
            *("--model", str(checkpoint)),
            *("--served-model-name", model.id),
            *("--max-num-seqs", str(self.capacity(model, room))),
            *("--max-model-len", str(_context(model, checkpoint, room))),
            *("--max-logprobs", str(_TOP_LOGPROBS)),
            *("--kv-cache-dtype", {"f16": "auto", "q8_0": "fp8"}[room.kv_type]),
            *("--generation-config", "vllm"),  # sampling is sent whole with each request
            *("--middleware", "pagoda.model.engines.vllm_key.RequireKey"),
            "--enable-prefix-caching",
            "--enable-prompt-tokens-details",
        ]
        if model.task == "embedding":
            arguments += ["--runner", "pooling", "--convert", "embed"]
        else:
            arguments += ["--kv-cache-memory-bytes", str(_kv_bytes(model, checkpoint, room, weights))]
        environment = {"PAGODA_ENGINE_KEY": key, "OMP_NUM_THREADS": str(room.threads)}
        if room.vllm_sleep:
            arguments.append("--enable-sleep-mode")
            environment["VLLM_SERVER_DEV_MODE"] = "1"  # which serves its paths, and others; all need the key
        arguments += room.vllm_arguments  # last, so that the operator's word counts
        return LaunchPlan(
            command=(sys.executable, "-m", "pagoda.model.engines.vllm_child"),
            environment=environment,
            config={"path": str(checkpoint), "key": key, "arguments": arguments},
            stop_seconds=_STOP_SECONDS,
        )

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> VllmEngine:
        """Speak to a started server; its context is asked of it."""
        engine = VllmEngine(model, url, key, room)
        models = await engine.ask_about_itself("/models")
        engine.context = models["data"][0]["max_model_len"]
        return engine


class VllmEngine(OpenAIEngine):
    """vLLM's dialect."""

    kind = "vllm"

    def __init__(self, model: ModelEntry, url: str, key: str, room: Room) -> None:
        embeds = model.task == "embedding"
        profile = Profile(
            generate=not embeds,
            embed=embeds,
            choices=room.parallel,
            top_logprobs=_TOP_LOGPROBS,
            unenforced_keywords=_LOOSE,
            tool_calls=model.calls_tools,
        )
        super().__init__(model, url + "/v1", key, room, profile)
        self.root = url.rstrip("/")

    async def generate(self, request: Generation, drawn: Drawn | None = None) -> AsyncIterator[Event]:
        """The common way, but for two habits: several greedy choices, which are equal, are refused by vLLM and so
        computed once; and a prompt that does not fit is not counted to its end."""
        copies = 1
        if request.n > 1 and self.sampling_body(request)["temperature"] == 0:
            copies, request = request.n, replace(request, n=1)
        try:
            async for event in super().generate(request, drawn):
                for each in _copied(event, copies):
                    yield each
        except ContextTooLong as error:
            raise ContextTooLong(max(await self._count(request), error.tokens), error.limit) from error

    async def _count(self, request: Generation) -> int:
        if request.messages is None and not isinstance(request.prompt, str):
            return len(request.prompt or ())
        text = request.prompt if isinstance(request.prompt, str) else None
        asked = Tokenize(model=request.model, text=text, messages=request.messages, special=True)
        return len((await self.tokenize(asked)).ids)

    def sampling_body(self, request: Generation) -> dict[str, Any]:
        """Every sampling parameter: the caller's, else the model's own, else OpenAI's default."""
        return NEUTRAL_SAMPLING | dict(self.model.sampling) | super().sampling_body(request)

    async def score(self, request: Score) -> Scores:
        """The log-probabilities that the prompt's own tokens have after those before them."""
        context = await self._token_ids(request.context)
        ids = await self._token_ids(request.context + request.text)
        shared = 0
        while shared < min(len(context), len(ids)) and context[shared] == ids[shared]:
            shared += 1
        shared = min(shared, len(ids) - 1)
        if shared <= 0:  # the first token of a text has nothing before it to be likely after
            raise InvalidRequest("Scoring needs a context of at least one token.", param="context")
        if self.context is not None and len(ids) >= self.context:
            raise ContextTooLong(len(ids), self.context)
        body = {"model": self.remote_name, "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0, "temperature": 0}
        answer = await self.post_json("/completions", body)
        rows = answer["choices"][0]["prompt_logprobs"]
        if len(rows) != len(ids):
            raise ModelError(f"{self.model.id} scored {len(rows)} tokens of {len(ids)}.")
        tokens = [self._token(ids[place], rows[place]) for place in range(shared, len(ids))]
        return Scores(model=self.model.id, tokens=tuple(tokens), prompt_tokens=len(ids))

    def _token(self, token: int, row: Mapping[str, Any]) -> TokenLogprob:
        found = row.get(str(token))
        if found is None:
            raise ModelError(f"{self.model.id} gives no log-probability for token {token}.")
        text = str(found.get("decoded_token") or "")
        return TokenLogprob(text, found["logprob"], tuple(text.encode()), (), token)

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Ids of a text, or of messages under the chat template."""
        if request.messages is not None:
            body: dict[str, Any] = {"messages": list(request.messages)}
            if request.continue_final:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            body = {"prompt": request.text or "", "add_special_tokens": request.special}
        answer = await self.post_json(self.root + "/tokenize", body | {"model": self.remote_name})
        ids: tuple[int, ...] = tuple(answer["tokens"])
        pieces = None
        if request.pieces:  # its own strings of tokens are those of the vocabulary, not of the text
            texts = {id: await self._text_of((id,)) for id in set(ids)}
            pieces = tuple(texts[id] for id in ids)
        return Tokens(model=self.model.id, ids=ids, context=self.context, pieces=pieces)

    async def detokenize(self, request: Detokenize) -> Text:
        """The text of token ids. vLLM leaves out those it does not have; the largest tells whether there are any."""
        if request.ids and not await self._text_of((last := max(request.ids),)):
            raise Rejected(f"{last} is not in the vocabulary of {self.model.id}.", param="tokens")
        return Text(model=self.model.id, text=await self._text_of(request.ids))

    async def _text_of(self, ids: Sequence[int]) -> str:
        body = {"model": self.remote_name, "tokens": list(ids)}
        answer = await self.post_json(self.root + "/detokenize", body)
        return str(answer["prompt"])

    async def sleep(self) -> None:
        """Level 1: weights to the host's memory, KV cache forgotten, and with it what was reused of prompts."""
        await self._order("/sleep?level=1", asleep=True)

    async def wake(self) -> None:
        """Weights and an empty KV cache back on the GPU."""
        await self._order("/wake_up", asleep=False)

    async def _order(self, path: str, *, asleep: bool) -> None:
        async with self.post(self.root + path, {}) as response:
            await response.read()
        told = await self.request_json("GET", self.root + "/is_sleeping")
        if told.get("is_sleeping") is not asleep:
            raise Unavailable(f"vLLM took {path} for {self.model.id} and did not follow it.")

    async def health(self) -> Health:
        """From vLLM's own metrics."""
        return vllm_health(await self.read_metrics())

    async def vitals(self) -> Vitals:
        """From vLLM's own metrics."""
        return vllm_vitals(await self.read_metrics())

    def translate(self, status: int, error: Mapping[str, Any]) -> ModelError:
        """A prompt that does not fit is told by its words, which name the context first and the prompt later."""
        said = str(error.get("message") or "")
        if status == 400 and "maximum context length" in said:
            numbers = [int(number) for number in re.findall(r"(\d+) (?:input )?tokens", said)]
            if self.context is not None and numbers:
                return ContextTooLong(max(numbers), self.context)
        return super().translate(status, error)

    async def _token_ids(self, text: str) -> list[int]:
        answer = await self.post_json(
            self.root + "/tokenize", {"model": self.remote_name, "prompt": text, "add_special_tokens": True}
        )
        ids: list[int] = answer["tokens"]
        return ids


def _copied(event: Event, copies: int) -> Iterator[Event]:
    """The same for every choice; usage counts them all."""
    if isinstance(event, Delta | Finish):
        yield from (replace(event, index=index) for index in range(copies))
    elif isinstance(event, Usage):
        yield replace(event, completion_tokens=event.completion_tokens * copies)
    else:
        yield event


def _checkpoint(model: ModelEntry, path: Path | None) -> Path:
    if path is None or not (path / "config.json").is_file():
        raise Unavailable(f"{model.id} is no checkpoint folder with a config.json, which vLLM needs.", retryable=False)
    return path


def _config(checkpoint: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return config


def _context(model: ModelEntry, checkpoint: Path, room: Room) -> int:
    own = model.context or int(_config(checkpoint).get("max_position_embeddings") or 0)
    wanted = room.context or min(own or _LARGEST_DEFAULT_CONTEXT, _LARGEST_DEFAULT_CONTEXT)
    return min(wanted, own) if own else wanted


def _kv_bytes(model: ModelEntry, checkpoint: Path, room: Room, weights: int) -> int:
    """Keys and values of all requests at full length, or as many as the GPU has room for beside the weights."""
    if model.task == "embedding":
        return 0
    config = _config(checkpoint)
    heads = int(config.get("num_attention_heads") or 1)
    width = int(config.get("head_dim") or int(config.get("hidden_size") or 0) // heads)
    numbers = 2 * int(config.get("num_hidden_layers") or 0) * int(config.get("num_key_value_heads") or heads) * width
    all_of_it = numbers * {"f16": 2, "q8_0": 1}[room.kv_type] * _context(model, checkpoint, room)
    all_of_it *= room.parallel
    rest = room.gpu_memory - weights - _ACTIVATION_BYTES
    return min(all_of_it, rest) if rest > 0 else all_of_it
