"""The catalog: the models that come with Pagoda, those the user added, and the other names they answer to."""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import os
import time
from collections.abc import Collection, Iterator, Mapping
from importlib import resources
from pathlib import Path

from pagoda.core.errors import Conflict, InvalidRequest, NotFound, StoreError
from pagoda.model.catalog.disk import stored, write_text
from pagoda.model.catalog.entry import HubFiles, LocalPath, ModelEntry
from pagoda.model.catalog.entry_file import read_entries, read_entry, write_entry
from pagoda.model.catalog.inspection import complete_entry
from pagoda.model.catalog.reference import HubReference, check_id, parse_reference, path_id

ALIAS_STEPS = 8
_LOOK_SECONDS = 0.5
"""How long an entry that was changed in place may go unseen."""


class _Known:
    """The entries as they were at one look, by id, and by every name they answer to."""

    def __init__(self, changed: int, until: float, entries: dict[str, ModelEntry]) -> None:
        self.changed = changed
        self.until = until
        self.entries = entries
        self.holders: dict[str, ModelEntry] = {}
        for entry in entries.values():
            if not entry.internal:
                for name in (entry.id, *entry.aliases):
                    self.holders.setdefault(name, entry)


class Catalog:
    """All known models. User entries are one YAML file each, read when asked, so that processes agree.

    ``aliases`` maps other names to ids or references; they come from the operator's settings.
    """

    def __init__(self, directory: Path, aliases: Mapping[str, str] | None = None) -> None:
        self._entries_directory = directory / "entries"
        self._aliases = dict(aliases or {})
        self._guests: dict[str, ModelEntry] = {}
        self._known: _Known | None = None
        self._turn: tuple[asyncio.AbstractEventLoop, _Known] | None = None
        """What was known at the first look of an event loop's present turn."""
        self._parsed: dict[Path, tuple[tuple[int, int, int], ModelEntry]] = {}
        text = resources.files(__package__).joinpath("builtin.yaml").read_text(encoding="utf-8")
        self._builtin = {
            entry.id: dataclasses.replace(entry, builtin=True) for entry in read_entries(text, "builtin.yaml")
        }

    @property
    def aliases(self) -> Mapping[str, str]:
        """Other names, as set by the operator."""
        return dict(self._aliases)

    def entries(self) -> list[ModelEntry]:
        """Every model that can be served: built-in ones first, then the user's by name."""
        return [entry for entry in self._all().values() if not entry.internal]

    def names_of(self, entry: ModelEntry) -> list[str]:
        """The other names of an entry."""
        return [*entry.aliases, *(name for name, target in self._aliases.items() if target == entry.id)]

    def resolve(self, name: str, among: Collection[str] | None = None) -> ModelEntry:
        """The known model of that id or alias; ``NotFound`` names those there are.

        Safe for names that come from clients: it reaches neither the file system nor a hub. Where ``among`` gives ids,
        no other model exists, in what is said either.
        """
        if among is None:
            return self._resolve(name, 0)
        try:
            entry = self._resolve(name, 0)
        except NotFound:
            raise self._unknown(name, among) from None
        if entry.id not in among:
            raise self._unknown(name, among)
        return entry

    def refer(self, reference: str) -> ModelEntry:
        """Like ``resolve``; a Hugging Face id or a local path also gives an entry, although the catalog has none.

        For names that the operator gives (commands, settings), since a path may lead anywhere on this machine.
        """
        try:
            return self._resolve(reference, 0)
        except NotFound:
            entry = _entry_for(reference)
            if entry is None:
                raise
            return self._all().get(entry.id, entry)

    def find(self, id: str) -> ModelEntry:
        """The entry of exactly that id, raw material included."""
        if found := self._all().get(id):
            return found
        raise self._unknown(id)

    def add(self, entry: ModelEntry, *, replace: bool = False) -> ModelEntry:
        """Keep an entry of the user's; ``Conflict`` when the name is taken."""
        check_id(entry.id)
        if entry.id in self._builtin:
            raise Conflict(f"{entry.id} comes with Pagoda; choose another name.", param="model")
        for name in (entry.id, *entry.aliases):
            taken = self._holder(name)
            if taken and taken.id != entry.id:
                raise Conflict(f"{name} is already a name of {taken.id}; choose another.", param="model")
        path = self._path(entry.id)
        if path.exists() and not replace:
            message = f"There is already a model {entry.id}; remove it first with `pagoda models remove {entry.id}`."
            raise Conflict(message, param="model")
        kept = dataclasses.replace(entry, builtin=False)
        with stored(f"The model {entry.id}", self._entries_directory):
            write_text(path, write_entry(kept))
        self._forget()
        return kept

    def lend(self, entry: ModelEntry) -> ModelEntry:
        """Know an entry in this process only, in place of a kept one of its id; nothing is written."""
        self._guests[check_id(entry.id)] = entry
        self._forget()
        return entry

    def remove(self, id: str) -> None:
        """Forget a model that the user added; its files are the store's to remove."""
        if id in self._builtin:
            raise InvalidRequest(f"{id} comes with Pagoda and stays in the catalog; only its files can be removed.")
        path = self._path(check_id(id))
        self._forget()
        try:
            path.unlink()
        except FileNotFoundError:
            raise self._unknown(id) from None
        except OSError as error:
            raise StoreError(f"{path} could not be removed: {error.strerror}.") from error

    def _resolve(self, name: str, steps: int) -> ModelEntry:
        if found := self._holder(name):
            return found
        if name not in self._aliases:
            raise self._unknown(name)
        if steps >= ALIAS_STEPS:
            raise InvalidRequest(f"The alias {name} leads in a circle; correct models.aliases.", param="model")
        target = self._aliases[name]
        try:
            return self._resolve(target, steps + 1)
        except NotFound:
            entry = _entry_for(target)
            if entry is None:
                message = f"The alias {name} leads to {target}, which does not exist; correct models.aliases."
                raise NotFound(message, param="model") from None
            return self._all().get(entry.id, entry)

    def _holder(self, name: str) -> ModelEntry | None:
        return self._look().holders.get(name)

    def _unknown(self, name: str, among: Collection[str] | None = None) -> NotFound:
        if among is None:
            there = [entry.id for entry in self.entries()] + list(self._aliases)
        else:
            there = [entry.id for entry in self.entries() if entry.id in among]
        close = difflib.get_close_matches(name, there, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        message = f"There is no model {name!r}; there are {', '.join(there)}.{meant}"
        return NotFound(message, code="model_not_found", param="model")

    def _all(self) -> dict[str, ModelEntry]:
        return self._look().entries

    def _look(self) -> _Known:
        """What is known. On an event loop that is looked up once a turn: whoever heard of a change and asks for it is
        served in a later one, and a request that asks three times before it waits for anything gets one answer."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._look_up()
        if self._turn is None or self._turn[0] is not loop:
            self._turn = (loop, self._look_up())
            loop.call_soon(self._end_turn)
        return self._turn[1]

    def _end_turn(self) -> None:
        self._turn = None

    def _forget(self) -> None:
        """What is known may have changed."""
        self._known = self._turn = None

    def _look_up(self) -> _Known:
        """The files are looked at again when their folder has changed, and now and then for those that were changed in
        place: every request asks, and reading the folder each time costs more than all else it does."""
        moment, changed = time.monotonic(), _changed(self._entries_directory)
        known = self._known
        if known is None or known.changed != changed or moment >= known.until:
            entries = {**self._builtin, **{entry.id: entry for entry in self._user_entries()}, **self._guests}
            known = self._known = _Known(changed, moment + _LOOK_SECONDS, entries)
        return known

    def _user_entries(self) -> Iterator[ModelEntry]:
        if not self._entries_directory.is_dir():
            return
        for path in sorted(self._entries_directory.glob("*.yaml")):
            try:
                entry = self._read(path)
            except FileNotFoundError:
                continue  # another process removed it just now
            except (OSError, UnicodeDecodeError) as error:
                raise StoreError(f"{path} cannot be read ({error}); correct or remove it.") from error
            if entry.id not in self._builtin:
                yield entry

    def _read(self, path: Path) -> ModelEntry:
        """The entry in a file, parsed again only when the file changed."""
        about = path.stat()
        signature = (about.st_mtime_ns, about.st_size, about.st_ino)
        if path not in self._parsed or self._parsed[path][0] != signature:
            self._parsed[path] = (signature, read_entry(path.read_text(encoding="utf-8"), str(path)))
        return self._parsed[path][1]

    def _path(self, id: str) -> Path:
        return self._entries_directory / f"{id}.yaml"


def _changed(folder: Path) -> int:
    """When something last came into the folder or left it; 0 where there is none."""
    try:
        return os.stat(folder).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _entry_for(reference: str) -> ModelEntry | None:
    """An entry for something outside the catalog; a path is read at once, a repository when it has been pulled."""
    parsed = parse_reference(reference)
    if parsed is None:
        return None
    if isinstance(parsed, HubReference):
        return hub_entry(parsed)
    if not parsed.exists():
        raise NotFound(f"There is no file {parsed}.", param="model")
    entry = ModelEntry(id=path_id(parsed), task="chat", engine="llamacpp", source=LocalPath(path=str(parsed)))
    return complete_entry(entry, parsed)


def hub_entry(reference: HubReference) -> ModelEntry:
    """An entry for a repository; engine and task are known only when its files are here."""
    gguf = bool(reference.file) or "gguf" in reference.repository.lower()
    files = (reference.file,) if reference.file else ()
    return ModelEntry(
        id=reference.id,
        task="chat",
        engine="llamacpp" if gguf else "transformers",
        source=HubFiles(repository=reference.repository, revision=reference.revision, files=files),
        aliases=(str(reference),),
    )
