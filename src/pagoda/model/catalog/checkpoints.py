"""Hugging Face checkpoints by name: the folder that a path, or a model of the catalog, leads to."""

from __future__ import annotations

from pathlib import Path

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.model.catalog.entry import Adapter, Derived
from pagoda.model.catalog.opening import Shelf


def find_checkpoint(shelf: Shelf, name: str) -> Path:
    """The folder of the checkpoint that ``name`` means; for a GGUF model the one that the catalog derives from it.

    Raises ``NotFound`` for a name that means nothing, ``InvalidRequest`` for an adapter and for what is no checkpoint.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder.absolute()
    merged = f"{name} is an adapter; merge it with `pagoda export` and name the result."
    if (folder / "adapter_config.json").is_file():
        raise InvalidRequest(merged, param="model")
    if folder.is_dir():
        raise InvalidRequest(f"{folder} holds no checkpoint: there is no config.json in it.", param="model")
    try:
        entry = shelf.catalog.refer(name)
    except NotFound as error:
        raise NotFound(f"There is neither a folder nor a model {name}.", param="model") from error
    if isinstance(entry.source, Adapter):
        raise InvalidRequest(merged, param="model")
    if entry.engine != "transformers":
        derived = (
            each
            for each in shelf.catalog.entries()
            if isinstance(each.source, Derived) and each.source.origin == entry.id and each.engine == "transformers"
        )
        entry = next(derived, entry)
    found = shelf.store.locate(entry)
    if found is None or not (found / "config.json").is_file():
        raise InvalidRequest(
            f"The model {name} has no Hugging Face checkpoint here; name one for transformers, or a folder. A GGUF "
            "file is served as it is.",
            param="model",
        )
    return found
