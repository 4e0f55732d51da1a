"""One request and its timeline: when it was due, sent, and answered piece by piece. Nothing is ever sent twice."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import orjson

_SAID = 300
Outcome = Literal["done", "failed", "unfinished"]


@dataclass(slots=True)
class Timeline:
    """What happened to a request. Times are seconds after the start of the load."""

    due: float
    """When it should have been sent: latency counts from here, so that a late sender hides nothing."""
    sent: float = 0.0
    ended: float = 0.0
    texts: array[float] = field(default_factory=lambda: array("d"))
    """When each frame with text came."""
    outcome: Outcome = "unfinished"
    reason: str = ""
    """Of a failure, in few words, the same for failures of a kind."""
    said: str = ""
    """Of a failure, the beginning of what the target said."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = False
    """Whether the tokens are the target's own count; else every frame with text counts as one."""

    @property
    def first(self) -> float | None:
        """Time to first token."""
        return self.texts[0] - self.due if self.texts else None

    @property
    def latency(self) -> float:
        """Time to the end of the answer."""
        return self.ended - self.due

    @property
    def gaps(self) -> list[float]:
        """Time from each frame with text to the next."""
        return [later - earlier for earlier, later in zip(self.texts, self.texts[1:], strict=False)]

    @property
    def token_seconds(self) -> float | None:
        """The mean time a token took after the first, however many came in a frame."""
        if len(self.texts) < 2 or self.completion_tokens < 2:
            return None
        return (self.texts[-1] - self.texts[0]) / (self.completion_tokens - 1)

    def fail(self, reason: str) -> None:
        """It failed."""
        self.outcome, self.reason = "failed", reason


class _Broken(Exception):
    """Control signal: the answer is no answer; its text is the reason."""


async def measure(
    session: aiohttp.ClientSession, url: str, body: Mapping[str, Any], line: Timeline, origin: float
) -> None:
    """Send the request and fill in its timeline; a request that is cancelled stays ``unfinished``."""
    line.sent = time.perf_counter() - origin
    try:
        async with session.post(url, data=orjson.dumps(body)) as response:
            if response.status != 200:
                line.said = (await response.read())[:_SAID].decode("utf-8", "replace")
                hint = " with Retry-After" if "Retry-After" in response.headers else ""
                raise _Broken(f"HTTP {response.status}{hint}")
            if body.get("stream"):
                await _read_stream(response, line, origin)
            else:
                _read_usage(orjson.loads(await response.read()).get("usage"), line)
        line.outcome = "done"
        if body.get("stream") and not line.texts:
            line.fail("empty answer")
    except _Broken as broken:
        line.fail(str(broken))
    except TimeoutError:
        line.fail("timeout")
    except aiohttp.ClientConnectorError:
        line.fail("no connection")
    except aiohttp.ClientError:
        line.fail("connection lost")
    except orjson.JSONDecodeError:
        line.fail("not JSON")
    except asyncio.CancelledError:
        line.ended = time.perf_counter() - origin
        raise
    line.ended = time.perf_counter() - origin


async def _read_stream(response: aiohttp.ClientResponse, line: Timeline, origin: float) -> None:
    rest, finished = b"", False
    async for block in response.content.iter_any():
        now = time.perf_counter() - origin
        rows = (rest + block).split(b"\n")
        rest = rows.pop()
        for row in rows:
            if not row.startswith(b"data:"):
                continue
            data = row[5:].strip()
            finished = data == b"[DONE]" or _read_frame(orjson.loads(data), line, now) or finished
    if not finished:
        raise _Broken("stream cut off")
    if not line.counted:
        line.completion_tokens = len(line.texts)


def _read_frame(payload: Any, line: Timeline, now: float) -> bool:
    """Take in a frame; give whether the answer says that it is complete."""
    if not isinstance(payload, dict):
        raise _Broken("not an OpenAI stream")
    if "error" in payload:
        line.said = str(payload["error"])[:_SAID]
        raise _Broken("error in the stream")
    finished = False
    for choice in payload.get("choices") or ():
        delta = choice.get("delta") or choice
        if delta.get("content") or delta.get("text") or delta.get("reasoning_content") or delta.get("reasoning"):
            line.texts.append(now)
        finished = finished or bool(choice.get("finish_reason"))
    _read_usage(payload.get("usage"), line)
    return finished


def _read_usage(usage: Mapping[str, Any] | None, line: Timeline) -> None:
    if usage:
        line.counted = True
        line.prompt_tokens = usage.get("prompt_tokens") or 0
        line.completion_tokens = usage.get("completion_tokens") or 0
        line.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
