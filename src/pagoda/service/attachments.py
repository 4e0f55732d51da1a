"""Adapters of engines that take them when they start: which are attached to which base, and as what files.

A base with one more adapter is another entry under the same id, so that the supervisor lets the requests under way end
and starts its engine anew; nobody is refused. An adapter that does not fit is refused before that.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pagoda.core.errors import Unavailable
from pagoda.model.catalog.entry import ADAPTER_FILES, Adapter, Attached, ModelEntry
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import TakesAdapters


@dataclass
class _Bundle:
    """A base, and the same with its adapters."""

    base: ModelEntry
    whole: ModelEntry
    versions: dict[str, tuple[str, int]] = field(default_factory=dict)


class Attachments:
    """What is attached. ``whole`` is cheap, since every request asks it."""

    def __init__(self, locate: Callable[[ModelEntry], Path | None]) -> None:
        self._locate = locate
        self._bundles: dict[str, _Bundle] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._attaching = asyncio.Lock()
        self._written = 0

    def whole(self, base: ModelEntry) -> ModelEntry:
        """The base, with or without what was attached to it before, with all that is now."""
        bundle = self._bundles.get(base.id)
        if bundle is None or bundle.whole is base:
            return base
        if bundle.base is not base and bundle.base != replace(base, adapters=()):
            del self._bundles[base.id]  # the base was changed: its adapters come back when they are asked
            return base
        return bundle.whole

    async def attach(self, base: ModelEntry, adapter: ModelEntry) -> ModelEntry:
        """The base with the adapter, which is written for it once. Raises ``UserError`` where it does not fit."""
        kind, source = engine_kind(base.engine), adapter.source
        if not isinstance(kind, TakesAdapters) or not isinstance(source, Adapter):
            return base
        async with self._attaching:
            version = await asyncio.to_thread(_version, adapter.id, source.path)
            whole = self.whole(base)
            bundle = self._bundles.get(base.id) or _Bundle(base, whole)
            if bundle.versions.get(adapter.id) == version:
                return bundle.whole
            path = await asyncio.to_thread(self._locate, base)
            if path is None:
                return base
            file = self._place()
            await asyncio.to_thread(kind.write_adapter, Path(source.path), path, file)
            others = tuple(each for each in bundle.whole.adapters if each.id != adapter.id)
            bundle.whole = replace(base, adapters=(*others, Attached(id=adapter.id, path=str(file))))
            bundle.versions[adapter.id] = version
            self._bundles[base.id] = bundle
            return bundle.whole

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="pagoda-adapters-")
        self._written += 1
        return Path(self._folder.name) / f"adapter-{self._written}.gguf"


def _version(name: str, path: str) -> tuple[str, int]:
    """Tells an adapter from one that was trained again into the same folder."""
    try:
        return path, max((Path(path) / needed).stat().st_mtime_ns for needed in ADAPTER_FILES)
    except OSError as error:
        raise Unavailable(
            f"The adapter {name} is not in {path} any more ({error.strerror}); bring it back or remove it.",
            code="model_broken",
            retryable=False,
        ) from error
