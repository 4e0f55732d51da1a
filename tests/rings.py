"""A ring of keys for tests of limits: made in memory, found by id."""

from __future__ import annotations

from datetime import UTC, datetime

from pagoda.core.settings import Keys
from pagoda.service.keys.book import Held
from pagoda.service.keys.key import Key, Limits
from pagoda.service.keys.ring import KeyRing
from pagoda.service.keys.secret import hash_of


def limited(name: str, team: str = "tests", team_limits: Limits | None = None, **limits: object) -> Key:
    """A key with these limits."""
    return Key(
        id=name,
        name=name,
        team=team,
        limits=Limits(**limits),  # type: ignore[arg-type]
        team_limits=team_limits or Limits(),
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )


class Ring(KeyRing):
    """A ring whose keys are in no book; the secret of a key is ``pk-`` and its name."""

    def __init__(self, *keys: Key) -> None:
        super().__init__(lambda: None, Keys())
        for key in keys:
            secret = hash_of(f"pk-{key.name}".encode())
            self._keep(Held(key=key, shown=key.name, last_used=None, hashes=((secret, None),)), self._epoch)
