"""Log-probabilities of an engine's answer, from either form that the OpenAI API has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pagoda.core.types import TokenLogprob


def token_logprobs(payload: Any, top: int | None) -> tuple[TokenLogprob, ...]:
    """Chat form (``content``) and legacy completion form (parallel lists) alike."""
    if not payload or top is None:
        return ()
    if "content" in payload:
        return tuple(_token(item, top) for item in payload["content"] or ())
    rivals = payload.get("top_logprobs") or [None] * len(payload["tokens"])
    return tuple(
        TokenLogprob(
            token,
            logprob or 0.0,
            None,
            tuple(TokenLogprob(name, value) for name, value in (others or {}).items())[:top],
        )
        for token, logprob, others in zip(payload["tokens"], payload["token_logprobs"], rivals, strict=True)
    )


def _token(item: Mapping[str, Any], top: int) -> TokenLogprob:
    raw = item.get("bytes")
    rivals = tuple(_token(rival, 0) for rival in (item.get("top_logprobs") or ())[:top])
    return TokenLogprob(item["token"], item["logprob"], None if raw is None else tuple(raw), rivals, item.get("id"))
