"""The leading blocks of a prompt as hashes, each over all that comes before it: equal hashes mean equal beginnings."""

from __future__ import annotations

from zlib import crc32

from pagoda.core.types import Generation, Json

_BLOCK = 256  # characters; about as much as it takes to be worth finding again
_MOST_BLOCKS = 16


def prefix_of(request: Generation) -> tuple[int, ...]:
    """The hashes."""
    length = _BLOCK * _MOST_BLOCKS
    if request.messages is None:
        prompt = request.prompt
        text = prompt[:length] if isinstance(prompt, str) else ",".join(map(str, (prompt or ())[:length]))
    else:
        text = ""
        for message in request.messages:
            text += f"\n{message['role']}:{_shown(message.get('content'))}"
            if len(text) >= length:
                break
    hashes, seen = [], 0
    for start in range(0, min(len(text), length), _BLOCK):
        block = text[start : start + _BLOCK]
        if start and len(block) < _BLOCK:
            break  # an unfinished block differs from its own continuation
        seen = crc32(block.encode("utf-8", "surrogatepass"), seen)
        hashes.append(seen)
    return tuple(hashes)


def length_of(request: Generation) -> int:
    """How long the prompt is, in characters or tokens."""
    if request.messages is None:
        return len(request.prompt or "")
    return sum(len(_shown(message.get("content"))) for message in request.messages)


def _shown(content: Json) -> str:
    return content if isinstance(content, str) else str(content)
