"""What GGUF says of a tokenizer that SentencePiece made (Llama 2, Mistral, Gemma), read from its ``tokenizer.json``.

llama.cpp joins the two neighbours whose piece has the highest score, as SentencePiece does (Kudo & Richardson, 2018);
``tokenizer.json`` has ranked merges instead. Both are the same where a piece may be made of any two pieces that give
it, and all of these rank together. What is otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest

SPACE = "▁"
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_REPLACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPENDS = {"type": "Prepend", "prepend": SPACE}
_SPLITS = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
"""Gemma's, which comes after spaces are no more."""


def is_byte(piece: str) -> bool:
    """Whether a piece stands for one byte of what has no piece of its own."""
    return piece in _BYTES


def scores_of(path: Path, model: Mapping[str, Any], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Scores by piece from ranked merges: higher is joined first. Raises ``InvalidRequest`` for other merges."""
    pieces = model["vocab"]
    if missing := sorted(_BYTES - set(pieces)):
        raise _refused(path, f"it has no piece for the byte {missing[0]}")
    if model.get("ignore_merges"):
        raise _refused(path, "it takes whole words without merges")
    found: dict[str, float] = {}
    last = None
    for rank, (left, right) in enumerate(pairs):
        if left + right != last and left + right in found:
            raise _refused(path, f"its merges to {left + right!r} do not rank together")
        last = left + right
        found.setdefault(last, -float(rank))
    known = set(pairs)
    for piece in pieces:
        ways = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        if piece in found and any(a in pieces and b in pieces and (a, b) not in known for a, b in ways):
            raise _refused(path, f"it makes {piece!r} of some pieces and not of others")
    lowest = -float(len(pairs))
    return {piece: found.get(piece, lowest) for piece in pieces}


def adds_space(path: Path, data: Mapping[str, Any], *, chats: bool) -> bool:
    """Whether a space is put before each text. Raises ``InvalidRequest`` for what llama.cpp does not do with spaces.

    Of the scheme ``first``, which llama.cpp has not (a space before what opens a prompt, none after a special token):
    as is right where ``chats`` begin with a special token, or for bare texts; the parity gate tells whether they do.
    """
    normal, before = _steps(data.get("normalizer"), "normalizers"), _steps(data.get("pre_tokenizer"), "pretokenizers")
    if normal == [_PREPENDS, _REPLACES] and not before:
        return True
    if normal == [_REPLACES] and before in ([], [_SPLITS]):
        return False
    if not normal and len(before) == 1 and before[0].get("type") == "Metaspace":
        step = before[0]
        if step.get("replacement") == SPACE and step.get("split") is False:
            scheme = step.get("prepend_scheme")
            return scheme == "always" or (scheme == "first" and not chats)
    kinds = ", ".join(str(step.get("type")) for step in [*normal, *before]) or "nothing"
    raise _refused(path, f"it prepares texts by {kinds}, in a way that is not SentencePiece's")


def _steps(found: Mapping[str, Any] | None, of: str) -> list[Mapping[str, Any]]:
    if not found:
        return []
    return list(found[of]) if found["type"] == "Sequence" else [found]


def _refused(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} has byte fallback, but {why}, which llama.cpp has no form for. `pagoda export --to safetensors` works."
    )
