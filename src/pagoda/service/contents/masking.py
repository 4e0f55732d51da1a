"""Secrets in text, made unreadable: what looks like a key, a token, a password or a private key."""

from __future__ import annotations

import re

MASK = "[secret]"

_WHOLE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:pk|sk|rk|hf|ghp|gho|ghs|github_pat|glpat|xox[abprs])[-_][A-Za-z0-9_-]{8,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    re.DOTALL,
)
_NAMED = re.compile(
    r"(?i)(\b(?:authorization|bearer|api[_-]?key|password|passwd|secret|token)\b[\"']?\s*[:= ]\s*[\"']?(?:bearer\s+)?)"
    r"([^\s\"',;]{6,})"
)


def masked(text: str) -> str:
    """The text without its secrets."""
    return _NAMED.sub(lambda found: found[1] + MASK, _WHOLE.sub(MASK, text))
