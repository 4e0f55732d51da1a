"""How an account stands, on its way to the client: a slot that the interface opens and this package fills.

A slot rather than a field of every answer, since refusals, streams and embeddings all have to carry the same headers,
and since it passes from the service process to a joined one by the same headers.
"""

from __future__ import annotations

from contextvars import ContextVar

from pagoda.service.limits.account import Standing

PREFIX = "x-ratelimit-"

SLOT: ContextVar[dict[str, str] | None] = ContextVar("pagoda_limits", default=None)
"""The headers of the present request's answer; ``None`` outside a request."""


def tell(standing: Standing) -> None:
    """Put a standing into the present request's slot."""
    slot = SLOT.get()
    if slot is None:
        return
    for what, limit, left, reset in (
        ("requests", standing.requests_limit, standing.requests_left, standing.requests_reset),
        ("tokens", standing.tokens_limit, standing.tokens_left, standing.tokens_reset),
    ):
        if limit is not None:
            slot["x-ratelimit-limit-" + what] = str(limit)
            slot["x-ratelimit-remaining-" + what] = str(left)
            slot["x-ratelimit-reset-" + what] = spell_seconds(reset)


def spell_seconds(seconds: float) -> str:
    """A duration as OpenAI writes it: ``6m0s``, ``1.5s``, ``20ms``."""
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
