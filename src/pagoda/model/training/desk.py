"""Where a training works and whom it tells: a run's context, or a folder when torchrun started the processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, SupportsFloat

from pagoda.core.runs.files import append_line, read_json, resume_lines, write_json
from pagoda.core.runs.lines import event_line, metric_line
from pagoda.core.settings import Settings
from pagoda.core.types import Json


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that train together, as one of them sees them."""

    count: int = 1
    first: bool = True
    """Whether it is the one that writes and tells."""


ALONE = Group()


class Desk(Protocol):
    """What a training needs; ``RunContext`` has it."""

    seed: int
    settings: Settings
    directory: Path

    @property
    def artifacts(self) -> Path:
        """Where results go."""

    @property
    def checkpoints(self) -> Path:
        """Where the state for a resumption goes."""

    @property
    def cancelled(self) -> bool:
        """Whether it shall stop."""

    def raise_if_cancelled(self) -> None:
        """Raise when it shall stop."""

    def progress(self, stage: str, done: int, total: int | None = None) -> None:
        """Say how far it is."""

    def metric(self, step: int, **values: SupportsFloat) -> None:
        """Record numbers of a step."""

    def event(self, kind: str, **data: Json) -> None:
        """Record that something happened."""

    def save_state(self, state: Json) -> None:
        """Keep a small value for the next attempt."""

    def load_state(self) -> Json:
        """The value kept last."""


class FolderDesk:
    """A folder laid out like a run's, for processes that torchrun starts; only the first of them writes."""

    cancelled: bool = False

    def __init__(self, directory: Path, seed: int, settings: Settings, *, writes: bool) -> None:
        self.directory = directory
        self.seed = seed
        self.settings = settings
        self._writes = writes
        for folder in (self.artifacts, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        self._attempt = 1 + max((line["attempt"] for line in resume_lines(self._metrics)), default=0) if writes else 0

    @property
    def artifacts(self) -> Path:
        """Where results go."""
        return self.directory / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Where the state for a resumption goes."""
        return self.directory / "checkpoints"

    @property
    def _metrics(self) -> Path:
        return self.directory / "metrics.jsonl"

    def raise_if_cancelled(self) -> None:
        """Nobody can ask for it but by a signal, which ends the process."""

    def progress(self, stage: str, done: int, total: int | None = None) -> None:
        """Shown by the metrics."""

    def metric(self, step: int, **values: SupportsFloat) -> None:
        """As a run writes them."""
        if self._writes:
            append_line(self._metrics, metric_line(step, values, self._attempt))

    def event(self, kind: str, **data: Json) -> None:
        """As a run writes them."""
        if self._writes:
            append_line(self.directory / "events.jsonl", event_line(kind, data))

    def save_state(self, state: Json) -> None:
        """A small value for the next attempt."""
        if self._writes:
            write_json(self.checkpoints / "state.json", state)

    def load_state(self) -> Json:
        """The value kept last."""
        try:
            return read_json(self.checkpoints / "state.json")
        except FileNotFoundError:
            return None
