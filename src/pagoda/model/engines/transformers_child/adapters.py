"""PEFT adapters on one model: loaded while it runs, switched between batches, their weights only as safetensors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.model.catalog.adapters import adapter_version
from pagoda.model.catalog.entry import ADAPTER_FILES


class Adapters:
    """The adapters of a model. ``use`` is called by whoever computes with the model next, never by two at once."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._versions: dict[str, tuple[str, int]] = {}
        self._slots: dict[str, str] = {}
        self._active = ""
        self._numbers = itertools.count()

    def check(self, name: str) -> str:
        """The name, if it is loaded; the base model has the empty one."""
        if name and name not in self._slots:
            raise NotFound(f"There is no adapter {name}.", param="model")
        return name

    def holds(self, name: str, path: str) -> bool:
        """Whether the adapter is loaded as it lies in that folder now."""
        return name in self._versions and self._versions[name] == adapter_version(name, path)

    def load(self, name: str, path: str) -> None:
        """Load an adapter beside the others, in place of one of its name. Raises ``InvalidRequest`` with why not."""
        folder = Path(path)
        for needed in ADAPTER_FILES:
            if not (folder / needed).is_file():
                pickled = " (a pickle is never loaded)" if (folder / "adapter_model.bin").is_file() else ""
                raise InvalidRequest(f"The adapter folder {path} has no {needed}{pickled}.", param="model")
        version = adapter_version(name, path)
        slot = f"adapter{next(self._numbers)}"  # a module's name may hold no dots, a model's id may
        self._active = "?"  # loading makes the new one active, or leaves anything behind
        try:
            report = self._model.load_adapter(path, adapter_name=slot, use_safetensors=True)
            lacking = [name for name in report.missing_keys if f".{slot}." in name]  # it lists other adapters' as well
            if strange := sorted([*lacking, *report.unexpected_keys]):
                raise ValueError(f"{len(strange)} tensors are not those the model wants, such as {strange[0]}")
        except (ValueError, RuntimeError, KeyError, TypeError, OSError, ImportError) as error:
            self._drop(slot)
            why = " ".join(str(error).split())[:300].rstrip(".")
            raise InvalidRequest(f"The adapter in {path} does not fit its base model: {why}.", param="model") from error
        if name in self._slots:
            self._drop(self._slots[name])
        self._slots[name] = slot
        self._versions[name] = version
        self._model.eval()

    def use(self, name: str) -> None:
        """Make an adapter, or the bare base, what the model computes with."""
        if name == self._active:
            return
        if name:
            self._model.enable_adapters()
            self._model.set_adapter(self._slots[name])
        elif self._there:
            self._model.disable_adapters()
        self._active = name

    @property
    def _there(self) -> dict[str, Any]:
        """What PEFT has put into the model, by slot."""
        return getattr(self._model, "peft_config", {})

    def _drop(self, slot: str) -> None:
        if slot in self._there:
            self._model.delete_adapter(slot)
