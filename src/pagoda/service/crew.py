"""Who serves a home with several processes: a file that the one which started them keeps, and everybody may read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The processes behind one listener."""

    url: str
    captain: int
    """The process that started the others and starts them again."""
    wanted: int
    workers: tuple[int, ...]
    """Those that are ready."""

    @property
    def alive(self) -> int:
        """How many of the workers live at this moment."""
        return sum(psutil.pid_exists(pid) for pid in self.workers)


def write_crew(home: Path, crew: Crew) -> None:
    """Say who serves."""
    draft = home / "crew.draft"
    draft.write_bytes(orjson.dumps(crew))
    draft.replace(home / "crew.json")


def read_crew(home: Path) -> Crew | None:
    """Who serves this home; ``None`` where that is one process, or nobody."""
    try:
        told = orjson.loads((home / "crew.json").read_bytes())
        crew = Crew(**told | {"workers": tuple(told["workers"])})
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return None  # there is none, or another version wrote it
    return crew if psutil.pid_exists(crew.captain) else None


def remove_crew(home: Path) -> None:
    """Say that nobody serves any more."""
    (home / "crew.json").unlink(missing_ok=True)
