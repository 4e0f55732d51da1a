"""What is known about a run, as values, and their form in ``run.json``.

Reading and deciding how a run stands is ``pagoda.core.runs.directory``'s part.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from pagoda.core.errors import InvalidRequest
from pagoda.core.runs.process import Process
from pagoda.core.setting_values import Secret
from pagoda.core.types import Json

Status: TypeAlias = Literal["created", "running", "done", "failed", "cancelled", "interrupted", "broken"]
"""``interrupted``: its process is gone without a word; ``broken``: its ``run.json`` cannot be read."""

FORMAT = 1
ENDED: frozenset[Status] = frozenset({"done", "failed", "cancelled", "interrupted", "broken"})
RESUMABLE: frozenset[Status] = frozenset({"failed", "cancelled", "interrupted"})

KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
ID = re.compile(r"\d{8}-\d{6}-[a-z][a-z0-9-]{0,31}-[0-9a-f]{4}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come in its present stage; ``total`` is ``None`` while unknown."""

    stage: str
    done: int
    total: int | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run at the moment it was read."""

    id: str
    directory: Path
    kind: str
    name: str = ""
    status: Status
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    seconds: float = 0.0
    """Time spent executing, by a clock that nobody sets; attempts that were killed are not in it."""
    seed: int = 0
    parent: str | None = None
    config: Mapping[str, Json] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = ""
    attempt: int = 0
    """How often it was executed; more than one means that it was resumed."""
    error: str | None = None
    result: Json = None
    progress: Progress | None = None
    process: Process | None = None
    heartbeat: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more happens unless somebody resumes it."""
        return self.status in ENDED

    def to_json(self) -> dict[str, Json]:
        """Everything, for machines."""
        document = to_document(self)
        del document["format"]
        progress = self.progress
        document["directory"] = str(self.directory)
        document["progress"] = progress and {"stage": progress.stage, "done": progress.done, "total": progress.total}
        document["pid"] = self.process and self.process.pid
        document["heartbeat"] = _text(self.heartbeat)
        return document


def now() -> datetime:
    """This moment; a run's times are for people and no decision rests on them."""
    return datetime.now(UTC)


def new_id(kind: str, moment: datetime) -> str:
    """A readable id that sorts by time: ``20261121-153012-sft-7f3a``."""
    return f"{moment.astimezone(UTC):%Y%m%d-%H%M%S}-{kind}-{secrets.token_hex(2)}"


def to_document(run: Run) -> dict[str, Json]:
    """The content of ``run.json``."""
    return {
        "format": FORMAT,
        "id": run.id,
        "kind": run.kind,
        "name": run.name,
        "status": run.status,
        "created": _text(run.created),
        "started": _text(run.started),
        "finished": _text(run.finished),
        "seconds": run.seconds,
        "attempt": run.attempt,
        "error": run.error,
        "result": run.result,
        "seed": run.seed,
        "parent": run.parent,
        "config": dict(run.config),
        "versions": dict(run.versions),
        "working_directory": run.working_directory,
    }


def from_document(directory: Path, document: Json) -> Run:
    """The run that ``run.json`` describes. Raises ``ValueError`` with the reason when it does not describe one."""
    if not isinstance(document, dict):
        raise ValueError("run.json is not a JSON object")
    if _take(document, "format", int) > FORMAT:
        raise ValueError("run.json was written by a newer Pagoda")
    status = _take(document, "status", str)
    if status not in get_args(Status) or status == "broken":
        raise ValueError(f"run.json has the unknown status {status!r}")
    if _take(document, "id", str) != directory.name:
        raise ValueError(f"run.json belongs to the run {document['id']}")
    error, parent = document.get("error"), document.get("parent")
    return Run(
        id=directory.name,
        directory=directory,
        kind=_take(document, "kind", str),
        name=_take(document, "name", str),
        status=status,
        created=parse_time(_take(document, "created", str)),
        started=_time(document.get("started")),
        finished=_time(document.get("finished")),
        seconds=float(_take(document, "seconds", int | float)),
        attempt=_take(document, "attempt", int),
        error=None if error is None else str(error),
        result=document.get("result"),
        seed=_take(document, "seed", int),
        parent=None if parent is None else str(parent),
        config=_take(document, "config", dict),
        versions=_take(document, "versions", dict),
        working_directory=_take(document, "working_directory", str),
    )


def broken_run(directory: Path, reason: str) -> Run:
    """A run that cannot be read, as far as its name tells."""
    stamp, _, rest = directory.name.partition("-")
    clock, _, rest = rest.partition("-")
    try:
        created = datetime.strptime(stamp + clock, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        created = datetime.fromtimestamp(0, UTC)
    return Run(
        id=directory.name,
        directory=directory,
        kind=rest.rpartition("-")[0] or "unknown",
        status="broken",
        created=created,
        error=f"{reason}; restore {directory / 'run.json'} or delete the directory.",
    )


def with_progress(run: Run, document: Json) -> Run:
    """The run with what ``status.json`` says; anything unreadable there is only a missing progress bar."""
    try:
        total = document["total"]
        progress = Progress(
            stage=_take(document, "stage", str),
            done=_take(document, "done", int),
            total=None if total is None else _take(document, "total", int),
            at=parse_time(_take(document, "at", str)),
        )
    except (KeyError, TypeError, ValueError):
        return run
    return replace(run, progress=progress)


def parse_time(text: str) -> datetime:
    """A time as the files hold it. Raises ``ValueError``."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text} has no zone")
    return moment


def check_config(config: Json, place: str = "config") -> Json:
    """The config as plain JSON. Raises ``InvalidRequest`` naming the place of what JSON cannot hold, or of a secret."""
    if isinstance(config, Secret):
        raise InvalidRequest(
            f"{place} is a secret, and a run's config is kept on the disk: name an environment variable instead.",
            param=place,
        )
    if isinstance(config, Mapping):
        wrong = [key for key in config if not isinstance(key, str)]
        if wrong:
            raise InvalidRequest(f"{place} has the key {wrong[0]!r}: keys must be texts.", param=place)
        return {str(key): check_config(value, f"{place}.{key}") for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [check_config(value, f"{place}[{index}]") for index, value in enumerate(config)]
    if isinstance(config, Path):
        return str(config)
    if config is None or isinstance(config, bool | int | str):
        return config
    if isinstance(config, float) and math.isfinite(config):
        return config
    raise InvalidRequest(f"{place} = {config!r} cannot be written as JSON: use texts and numbers.", param=place)


def _take(document: Mapping[str, Json], key: str, kind: Any) -> Any:
    value = document.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"run.json has no proper {key!r}")
    return value


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _time(value: Json) -> datetime | None:
    return None if value is None else parse_time(str(value))
