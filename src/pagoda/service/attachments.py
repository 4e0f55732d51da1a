"""Adapters of engines that take them when they start: which are attached to which base, and as what files.

A base with one more adapter is another entry under the same id, so that the supervisor lets the requests under way end
and starts its engine anew; nobody is refused. An adapter that does not fit is refused before that.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pagoda.model.catalog.adapters import adapter_version
from pagoda.model.catalog.entry import Adapter, Attached, ModelEntry
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
        self._attaching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One for each base: what is written for another is nothing to wait for."""
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
        version = await asyncio.to_thread(adapter_version, adapter.id, source.path)
        if (known := self._known(base, adapter, version)) is not None:
            return known
        async with self._attaching[base.id]:
            if (known := self._known(base, adapter, version)) is not None:
                return known
            bundle = self._bundles.get(base.id) or _Bundle(base, base)
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

    def _known(self, base: ModelEntry, adapter: ModelEntry, version: tuple[str, int]) -> ModelEntry | None:
        """The base with the adapter, if it has it as of then."""
        whole, bundle = self.whole(base), self._bundles.get(base.id)
        return whole if bundle is not None and bundle.versions.get(adapter.id) == version else None

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="pagoda-adapters-")
        self._written += 1
        return Path(self._folder.name) / f"adapter-{self._written}.gguf"
