"""Checkpoints of a training on disk: whole or not there, the newest ones and the best kept. Not what is in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pagoda.core.errors import StoreError
from pagoda.core.runs.files import write_json

MARK = "complete.json"
_PREFIX = "checkpoint-"


class Checkpoints:
    """The checkpoints in a folder; one without its mark was cut short and does not count."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def newest(self) -> Path | None:
        """The checkpoint to go on from."""
        return max((path for path in self._all() if (path / MARK).is_file()), key=step_of, default=None)

    def tidy(self) -> None:
        """Remove what a kill left half done."""
        for path in self._all():
            if not (path / MARK).is_file():
                shutil.rmtree(path)

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """While a checkpoint is written to ``path``: marked when it is whole, removed when the disk refuses it.

        Raises ``StoreError``; older checkpoints are untouched.
        """
        try:
            yield
            _sync(path)
            write_json(path / MARK, {"step": step_of(path)})
        except (OSError, SafetensorError, RuntimeError, StoreError) as error:
            shutil.rmtree(path, ignore_errors=True)
            before = self.newest()
            kept = f"; the checkpoint of step {step_of(before)} is kept" if before else ""
            raise StoreError(
                f"The checkpoint of step {step_of(path)} could not be written ({_why(error)}){kept}. Free some space, "
                "then resume the run.",
                code="store_full" if "space" in _why(error).lower() else "store_error",
                retryable=True,
            ) from error

    def prune(self, best: Path | None) -> None:
        """Remove all but the newest ones and the ``best``."""
        whole = sorted((path for path in self._all() if (path / MARK).is_file()), key=step_of)
        for path in whole[: -self._keep]:
            if best is None or path.name != best.name:
                (path / MARK).unlink()  # first, so that a kill in the middle leaves no half that counts
                shutil.rmtree(path)

    def _all(self) -> list[Path]:
        return [path for path in self.folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]


@contextmanager
def placing(target: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``target`` when it is whole. Raises ``StoreError``."""
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StoreError(
            f"{target} could not be written ({_why(error)}); free some space, then resume the run."
        ) from error


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _why(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    said = str(strerror or error).strip()
    return " ".join(said.split())[:200] or type(error).__name__
