"""One service process a ``PAGODA_HOME``: a lock that dies with its holder, and a file with the holder's address."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import orjson
from filelock import FileLock, Timeout

from pagoda.core.errors import StoreError

_CLAIM_SECONDS = 1.0  # longer than anybody holds the lock just to look whether it is free


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What the service process publishes for those who join it."""

    url: str
    key: str
    pid: int
    embedded: bool
    """It ends by itself when nobody has joined it any more."""


class Presence:
    """The claim of this process, or the knowledge of another's."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._notice = home / "service.json"
        self._lock = FileLock(home / "service.lock", thread_local=False)  # claimed in one thread, released in another

    def claim(self) -> bool:
        """Become the service process of this home; ``False`` when another process is. Raises ``StoreError``."""
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=_CLAIM_SECONDS)
        except Timeout:
            return False
        except OSError as error:
            raise StoreError(
                f"{self._home} cannot be used ({error.strerror}); set PAGODA_HOME to a folder you can write to."
            ) from error
        self._notice.unlink(missing_ok=True)
        return True

    def publish(self, notice: Notice) -> None:
        """Say where this process listens; readable by the same user alone, since it holds the internal key."""
        draft = self._notice.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps(notice))
        draft.replace(self._notice)

    def withdraw(self) -> None:
        """Let nobody else come, while the claim is kept."""
        if self._lock.is_locked:
            self._notice.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the claim up."""
        if self._lock.is_locked:
            self.withdraw()
            self._lock.release()

    def find(self) -> Notice | None:
        """Where the service process of this home listens; ``None`` when there is none or it is not ready yet."""
        if not self._notice.exists():
            return None
        probe = FileLock(self._home / "service.lock")
        try:
            probe.acquire(blocking=False)
        except Timeout:
            pass
        else:  # nobody holds it: the notice is a dead process's
            probe.release()
            return None
        try:
            return Notice(**orjson.loads(self._notice.read_bytes()))
        except (FileNotFoundError, orjson.JSONDecodeError, TypeError):
            return None  # it is being replaced or was written by another version; who asks looks again
