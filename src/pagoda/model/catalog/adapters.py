"""PEFT adapters on disk: what tells one from another that was trained again into the same folder."""

from __future__ import annotations

from pathlib import Path

from pagoda.core.errors import Unavailable
from pagoda.model.catalog.entry import ADAPTER_FILES


def adapter_version(name: str, path: str) -> tuple[str, int]:
    """Where an adapter is from and as of when, in nanoseconds. Raises ``Unavailable`` for one that is gone."""
    try:
        return path, max((Path(path) / needed).stat().st_mtime_ns for needed in ADAPTER_FILES)
    except OSError as error:
        raise Unavailable(
            f"The adapter {name} is not in {path} any more ({error.strerror}); bring it back or remove it.",
            code="model_broken",
            retryable=False,
        ) from error
