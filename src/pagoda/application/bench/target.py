"""The address under measurement: what it takes, how it counts tokens, and what memory its engine holds.

What is asked here is asked before or beside the load, never instead of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from pagoda.application.bench.prompts import WORDS, Recipe, Request, taught
from pagoda.core.errors import InvalidRequest, ModelError, Unavailable

_PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
_FEW, _MANY = 16, len(WORDS)
_FEWEST_WORDS = 32
"""Fewer words that are one token each make texts too much alike."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI address (with its ``/v1``), reached through a session that carries its key."""

    url: str
    session: aiohttp.ClientSession

    def path(self, request: Request) -> str:
        """Where requests go."""
        return self.url + _PATHS[request.endpoint]

    async def learn(self, request: Request) -> Request:
        """The request as this target takes it: whether it takes ``ignore_eos``, and how it counts tokens.

        Raises ``InvalidRequest`` or ``ModelError`` when it does not answer such a request at all.
        """
        few, many = " ".join(WORDS[:1] * _FEW), " ".join(WORDS)
        ignore_eos = request.endpoint != "embeddings"
        try:
            base = await self._prompt_tokens(taught(request, request.recipe, ignore_eos=ignore_eos), few)
        except InvalidRequest:
            if not ignore_eos:
                raise
            ignore_eos = False
            base = await self._prompt_tokens(taught(request, request.recipe, ignore_eos=False), few)
        request = taught(request, request.recipe, ignore_eos=ignore_eos)
        if request.dataset:
            return request
        grown = await self._prompt_tokens(request, many) - base
        recipe = Recipe(WORDS, 1.0, base - _FEW, exact=True)
        if grown != _MANY - _FEW:
            recipe = await self._find_words(request.model, base, grown)
        if request.input_tokens <= recipe.overhead:
            raise InvalidRequest(
                f"--input-tokens {request.input_tokens}: the chat template alone has {recipe.overhead} tokens.",
                param="input_tokens",
            )
        return taught(request, recipe, ignore_eos=ignore_eos)

    async def _prompt_tokens(self, request: Request, text: str) -> int:
        usage = (await self._ask(self.path(request), request.with_text(text))).get("usage") or {}
        return int(usage.get("prompt_tokens") or 0)

    async def _find_words(self, model: str, base: int, grown: int) -> Recipe:
        """Only the words that are one token each, where the target can be asked; else what a word takes on average."""
        average = grown / (_MANY - _FEW) if grown > 0 else 1.0
        rough = Recipe(WORDS, average, max(0, round(base - _FEW * average)))
        anchor = WORDS[0]
        try:
            alone = await self._count(model, anchor)
            counts = [await self._count(model, f"{anchor} {word}") for word in WORDS]
        except (InvalidRequest, ModelError):
            return rough
        words = tuple(word for word, count in zip(WORDS, counts, strict=True) if count == alone + 1)
        if len(words) < _FEWEST_WORDS or anchor not in words:
            return rough
        return Recipe(words, 1.0, base - _FEW, exact=True)

    async def _count(self, model: str, text: str) -> int:
        answer = await self._ask(self._root + "/tokenize", {"model": model, "prompt": text})
        tokens = answer.get("tokens")
        if not isinstance(tokens, list):
            raise ModelError(f"{self._root}/tokenize gives no tokens.")
        return len(tokens)

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")

    async def _ask(self, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            async with self.session.request(
                "GET" if body is None else "POST", url, data=None if body is None else orjson.dumps(body)
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise Unavailable(f"{url} cannot be measured, since it does not answer: {said}.") from error
        answer = _parsed(raw)
        if response.status == 200 and isinstance(answer, dict):
            return answer
        said = _said(answer)
        if response.status in (400, 422):
            raise InvalidRequest(f"{url} refuses such requests: {said}")
        raise ModelError(f"{url} answers with status {response.status}: {said}")

    @asynccontextmanager
    async def watched(self, model: str) -> AsyncIterator[dict[str, int]]:
        """The most memory (bytes, by pool) that the model's engine is seen to hold in the block.

        Empty where the target does not tell, as only Pagoda does.
        """
        peak: dict[str, int] = {}

        async def look() -> None:
            while (held := await self._held(model)) is not None:
                for pool, used in held.items():
                    peak[pool] = max(peak.get(pool, 0), used)
                await asyncio.sleep(_LOOK_SECONDS)

        task = asyncio.create_task(look())
        try:
            yield peak
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _held(self, model: str) -> dict[str, int] | None:
        """Bytes that the model's engine holds now; ``None`` from an address that is no Pagoda."""
        try:
            rows = (await self._ask(self._root + "/api/v1/models")).get("data")
        except (InvalidRequest, ModelError):
            return None
        found = [row for row in rows if row.get("id") == model] if isinstance(rows, list) else []
        return dict(found[0].get("used") or {}) if found else {}


def _parsed(raw: bytes) -> Any:
    """JSON, or of a stream the frames laid over one another, or the beginning of whatever it is."""
    frames = [row[5:] for row in raw.splitlines() if row.startswith(b"data:") and row[5:].strip() != b"[DONE]"]
    try:
        if not frames:
            return orjson.loads(raw)
        return {name: value for frame in frames for name, value in orjson.loads(frame).items() if value}
    except (orjson.JSONDecodeError, AttributeError):
        return raw[:200].decode("utf-8", "replace")


def _said(answer: Any) -> str:
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
