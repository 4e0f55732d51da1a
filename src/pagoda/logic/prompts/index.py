"""The index of prompts at hand: what requests ask, answered from memory, and kept up with the book in the background.

Every ``refresh_seconds`` one row is asked for: the number of the last change. What was changed since is read then, with
the versions that labels in use mean now, so that a moved label costs no request a read of the database. While the
database does not answer, what is at hand goes on being used.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from pagoda.core.errors import NotFound, PagodaError, StoreError
from pagoda.core.recurring import recur
from pagoda.core.types import Call
from pagoda.logic.prompts.library import from_library
from pagoda.logic.prompts.prompt import PromptReference, PromptVersion
from pagoda.logic.prompts.resolving import LIVE, Chooser

if TYPE_CHECKING:  # it brings the database, which a service without prompts of its own never opens
    from pagoda.logic.prompts.book import Head, PromptBook

logger = logging.getLogger(__name__)

_MOST_AT_HAND = 2000
_PATIENCE_SECONDS = 2.0


class PromptIndex:
    """``PromptSource`` in memory. ``book`` opens the book, or gives ``None`` where there are no records at all."""

    def __init__(self, book: Callable[[], PromptBook | None], refresh_seconds: float) -> None:
        self.chooser: Chooser | None = None
        """An experiment's say in what labels mean."""
        self._book = book
        self._refresh_seconds = refresh_seconds
        self._heads: dict[tuple[str, str], Head] = {}
        self._at_hand: OrderedDict[tuple[str, str, int], PromptVersion] = OrderedDict()
        self._seen = -1
        self._works = True
        self._renewing = asyncio.Lock()
        self._looked = asyncio.Event()
        """Set when the book was read for the first time, or could not be."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn what prompts there are, unless the database is slow, and follow their changes from now on."""
        self._task = asyncio.create_task(recur(self.refresh, self._refresh_seconds, at_once=True))
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._looked.wait()
        except TimeoutError:
            logger.warning("prompts are not read yet, since the database does not answer")

    async def close(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def resolve(self, reference: PromptReference, call: Call) -> PromptVersion:
        """The version that is meant, for the call's tenant. Raises ``NotFound`` and ``StoreError``."""
        name = reference.name
        if self._seen < 0 and self._book() is not None:
            if self._works and self._looked.is_set():  # the records were made a moment ago
                await self.refresh()
            if self._seen < 0:
                raise StoreError("Prompts cannot be looked up yet; the database does not answer.", retryable=True)
        head = self._heads.get((call.tenant, name))
        if head is None:
            return _packaged(reference)
        if reference.version is not None:
            return await self._version(call.tenant, name, reference.version)
        label = reference.label or LIVE
        meant = head.labels.get(label)
        if meant is None and reference.label is not None:
            raise _no_label(name, label)
        chosen = self.chooser(call, name, label) if self.chooser is not None else None
        return await self._version(call.tenant, name, chosen or meant or head.newest)

    def names(self, tenant: str) -> dict[str, Head]:
        """The prompts of a team, without those that come with Pagoda."""
        return {name: head for (owner, name), head in sorted(self._heads.items()) if owner == tenant}

    async def refresh(self) -> None:
        """Take over what was changed; a database that does not answer is noted, not raised."""
        async with self._renewing:
            try:
                await self._take_over()
            except PagodaError as error:
                if self._works:
                    logger.error("prompts cannot be renewed; those in memory go on being used: %s", error)
                self._works = False
                return
            finally:
                self._looked.set()
            if not self._works:
                logger.info("prompts are renewed again")
            self._works = True

    async def _take_over(self) -> None:
        book = self._book()
        if book is None:
            return
        if self._seen < 0:
            seen = await book.last_change()  # before the heads: what changes meanwhile is read again
            self._heads = await book.heads()
            self._seen = seen
            return
        seen, changed = await book.changed_since(self._seen)
        if changed:
            found = await book.heads(changed)
            for which in changed:
                await self._fetch_meant(book, which, found[which])
            for which in changed:
                self._heads[which] = found[which]
        self._seen = seen

    async def _fetch_meant(self, book: PromptBook, which: tuple[str, str], head: Head) -> None:
        """Have at hand what the labels of a prompt in use mean, before they mean it."""
        if not any(key[:2] == which for key in self._at_hand):
            return
        for version in {*head.labels.values(), head.newest}:
            if (*which, version) not in self._at_hand:
                self._keep(await book.get(*which, version))

    async def _version(self, tenant: str, name: str, version: int) -> PromptVersion:
        found = self._at_hand.get((tenant, name, version))
        if found is not None:
            self._at_hand.move_to_end((tenant, name, version))
            return found
        book = self._book()
        if book is None:
            raise StoreError(f"The prompt {name} was kept, but its database is gone.", retryable=True)
        return self._keep(await book.get(tenant, name, version))

    def _keep(self, version: PromptVersion) -> PromptVersion:
        self._at_hand[version.tenant, version.prompt.name, version.version] = version
        while len(self._at_hand) > _MOST_AT_HAND:
            self._at_hand.popitem(last=False)
        return version


def _packaged(reference: PromptReference) -> PromptVersion:
    """A prompt that comes with Pagoda: it has one version, which is what ``production`` means."""
    found = from_library(reference.name)
    if found is None:
        raise NotFound(
            f"There is no prompt {reference.name[:100]!r}; `pagoda prompts list` names them all.", param="prompt.name"
        )
    if reference.label not in (None, LIVE):
        raise _no_label(reference.name, reference.label)
    if reference.version not in (None, found.version):
        raise NotFound(
            f"{reference.name} comes with Pagoda and has version {found.version} alone.", param="prompt.version"
        )
    return found


def _no_label(name: str, label: str) -> NotFound:
    return NotFound(f"The prompt {name} has no label {label[:64]!r}.", param="prompt.label")
