"""The secret of a key: how it is made, how it is kept, and how much of it a list may show."""

from __future__ import annotations

import hashlib
import re
import secrets

_PREFIX = "pk-"
_RANDOM_BYTES = 32
_FORM = re.compile(rb"pk-[A-Za-z0-9_-]{43}")
_SHOWN = 7


def new_secret() -> str:
    """A fresh secret with 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def has_form(secret: bytes) -> bool:
    """Whether this can be a secret at all; what cannot is not looked up."""
    return _FORM.fullmatch(secret) is not None


def hash_of(secret: bytes) -> str:
    """What is kept of a secret. A fast hash will do: nobody can try 2**256 secrets, however fast each try is."""
    return hashlib.sha256(secret).hexdigest()


def shown_of(secret: str) -> str:
    """The beginning of a secret, by which its owner knows it again: 24 of its 256 bits."""
    return secret[:_SHOWN] + "…"
