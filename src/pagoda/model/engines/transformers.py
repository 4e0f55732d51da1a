"""transformers, for Hugging Face checkpoints and PEFT adapters, on a CPU or on CUDA; see ``transformers_child``.

The child is ours, so the dialect is small: every sampling setting is sent, an adapter is named beside the model,
scoring and tokens have addresses of their own. It needs torch, which the serving install does not bring.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, NotFound, Unavailable
from pagoda.core.types import (
    Event,
    Generation,
    Score,
    Scores,
    Started,
    Tokenize,
    TokenLogprob,
)
from pagoda.model.catalog.adapters import adapter_version
from pagoda.model.catalog.entry import Adapter, ModelEntry
from pagoda.model.catalog.recipes.safetensors import tensor_sizes
from pagoda.model.engines.choice import PACKAGES
from pagoda.model.engines.contract import Drawn, LaunchPlan, Memory, Profile, Room
from pagoda.model.engines.openai import NEUTRAL_SAMPLING
from pagoda.model.engines.own_child import OwnChild

INSTALL = "pip install 'pagoda-llm[train]'"

_LARGEST_DEFAULT_CONTEXT = 4096
_PAGE_TOKENS = 32
_STEP_TOKENS = {"cpu": 256, "cuda": 1024}
"""Tokens of one step: prompts are read in pieces of this size, and a cancelled one stops after a piece."""
_OVERHEAD_BYTES = 560 * 1024 * 1024  # Python with torch and transformers, measured with a model of 2 MB
_EMBEDDINGS_A_SLOT = 16
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Transformers:
    """Launches ``transformers_child`` and speaks to it."""

    name = "transformers"
    runs = "process"
    parallel = 4

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """Weights in the type they are computed in; pages for every slot full; the process and its masks."""
        folder = _folder(model, path)
        device, width = _device(room), _BYTES[_dtype(room)]
        weights = width * sum(size for file in folder.glob("*.safetensors") for size in tensor_sizes(file).values())
        if model.task == "embedding":
            return Memory(weights=weights, kv_cache=0, overhead=_OVERHEAD_BYTES)
        config = _config(folder)
        tokens = room.parallel * math.ceil(_context(model, config, room) / _PAGE_TOKENS) * _PAGE_TOKENS
        step = _STEP_TOKENS[device]
        mask = step * (tokens + step) * width
        logits = 4 * 4 * room.parallel * int(config.get("vocab_size", 0))  # the raw ones and three copies of them
        return Memory(
            weights=weights,
            kv_cache=_kv_bytes_per_token(config, width) * (tokens + 2 * _PAGE_TOKENS),
            overhead=_OVERHEAD_BYTES + mask + logits,
            on_gpu=device == "cuda",
        )

    def capacity(self, model: ModelEntry, room: Room) -> int:
        """Its slots; texts to embed are short, and those that wait for the same batch cost it little."""
        return room.parallel * _EMBEDDINGS_A_SLOT if model.task == "embedding" else room.parallel

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """Start ``transformers_child`` on the model's folder."""
        folder = _folder(model, path)
        if lacking := [name for name in PACKAGES[self.name] if importlib.util.find_spec(name) is None]:
            raise Unavailable(
                f"{model.id} needs {', '.join(lacking)}, which this install does not have: run `{INSTALL}`.",
                code="not_installed",
                retryable=False,
            )
        return LaunchPlan(
            command=(sys.executable, "-m", "pagoda.model.engines.transformers_child"),
            environment={
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TOKENIZERS_PARALLELISM": "false",
                "OMP_NUM_THREADS": str(room.threads),
            },
            config={
                "path": str(folder),
                "key": key,
                "context": _context(model, _config(folder), room),
                "parallel": room.parallel,
                "threads": room.threads,
                "embedding": model.task == "embedding",
                "device": room.device,
                "dtype": room.dtype,
                "page": _PAGE_TOKENS,
                "step": _STEP_TOKENS[_device(room)],
                "trust": model.trust_remote_code,
            },
        )

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> TransformersEngine:
        """Speak to a started child; its context is asked of it."""
        engine = TransformersEngine(model, url, key, room)
        await engine.ask_context()
        return engine


class TransformersEngine(OwnChild):
    """The common tongue of our own children, with chat templates, scores and adapters."""

    kind = "transformers"

    def __init__(self, model: ModelEntry, url: str, key: str, room: Room) -> None:
        embeds = model.task == "embedding"
        profile = Profile(
            generate=not embeds,
            embed=embeds,
            score=not embeds,
            adapters=not embeds,
            unenforced_keywords=frozenset(
                {"uniqueItems", "not", "if", "contains", "minContains", "maxContains", "propertyNames", "oneOf"}
                | {"dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"}
                | {"unevaluatedItems", "$dynamicRef"}
            ),
        )
        super().__init__(model, url, key, room, profile)
        self._adapters: dict[str, tuple[str, int]] = {}
        """Those the child holds: where from, and as of when."""

    async def adopt(self, adapter: ModelEntry) -> None:
        """Load an adapter of this model, once."""
        source = adapter.source
        if not isinstance(source, Adapter):
            raise InvalidRequest(f"{adapter.id} is no adapter.", param="model")
        version = adapter_version(adapter.id, source.path)
        if self._adapters.get(adapter.id) != version:
            await self.post_json(self.root + "/adapters", {"name": adapter.id, "path": source.path})
            self._adapters[adapter.id] = version

    async def generate(self, request: Generation, drawn: Drawn | None = None) -> AsyncIterator[Event]:
        """As the common tongue, under the adapter's name where one answers."""
        async for event in super().generate(request, drawn):
            yield (
                replace(event, model=self._adapter(request.model) or self.model.id)
                if isinstance(event, Started)
                else event
            )

    async def generation_body(self, request: Generation) -> tuple[str, dict[str, Any]]:
        """The common body, with the adapter's name."""
        path, body = await super().generation_body(request)
        return path, body | {"adapter": self._adapter(request.model)}

    def sampling_body(self, request: Generation) -> dict[str, Any]:
        """Every sampling parameter, from the caller, else the model's generation config, else OpenAI's default."""
        return NEUTRAL_SAMPLING | dict(self.model.sampling) | super().sampling_body(request)

    def length(self, request: Generation) -> int:
        """The asked length, else the whole context: generation then ends with ``length`` where the context does."""
        return request.max_tokens if request.max_tokens is not None else self.context or _LARGEST_DEFAULT_CONTEXT

    async def score(self, request: Score) -> Scores:
        """Exact log-probabilities, by a forward pass of their own."""
        body = {"context": request.context, "text": request.text, "adapter": self._adapter(request.model)}
        answer = await self.post_json(self.root + "/score", body)
        tokens = tuple(
            TokenLogprob(item["token"], item["logprob"], tuple(item["bytes"]), (), item["id"])
            for item in answer["tokens"]
        )
        return Scores(model=self.model.id, tokens=tokens, prompt_tokens=answer["prompt_tokens"])

    async def tokenized(self, request: Tokenize) -> tuple[str, dict[str, Any]]:
        """A text, or messages under the chat template, which writes what is special itself."""
        if request.messages is None:
            return await super().tokenized(request)
        body = {"messages": list(request.messages), "continue_final": request.continue_final}
        text = (await self.post_json(self.root + "/apply-template", body))["prompt"]
        return text, {"add_special": False, "parse_special": True}

    def _adapter(self, name: str) -> str:
        return name if name in self._adapters else ""


def _folder(model: ModelEntry, path: Path | None) -> Path:
    if path is None or not path.is_dir():
        raise Unavailable(f"{model.id} is no folder with a checkpoint.", code="model_broken", retryable=False)
    return path


def _config(folder: Path) -> dict[str, Any]:
    """The config of the text model."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"{folder} holds no config.json and so no checkpoint.", param="model") from error
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"{folder / 'config.json'} is broken ({error}); fetch it again.", code="model_broken", retryable=False
        ) from error
    inner: dict[str, Any] = content.get("text_config") or content
    return inner


def _device(room: Room) -> str:
    """Where the child will compute. ``auto`` asks torch only in the child; here the driver's presence decides."""
    if room.device != "auto":
        return room.device
    return "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"


def _dtype(room: Room) -> str:
    if room.dtype != "auto":
        return room.dtype
    return "float32" if _device(room) == "cpu" else "bfloat16"


def _context(model: ModelEntry, config: dict[str, Any], room: Room) -> int:
    own = model.context or int(config.get("max_position_embeddings") or 0)
    if model.task == "embedding":
        return own or 512
    if room.context:
        return min(room.context, own) if own else room.context
    return min(own or _LARGEST_DEFAULT_CONTEXT, _LARGEST_DEFAULT_CONTEXT)


def _kv_bytes_per_token(config: dict[str, Any], width: int) -> int:
    heads = int(config.get("num_attention_heads") or 1)
    dimensions = int(config.get("head_dim") or int(config.get("hidden_size") or 0) // heads)
    return (
        int(config.get("num_hidden_layers") or 0)
        * int(config.get("num_key_value_heads") or heads)
        * dimensions
        * 2
        * width
    )
