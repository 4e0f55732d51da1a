"""Which engine runs a model that was named by a path or a hub's id, and why. The rule stands apart from its facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pagoda.core.errors import Unavailable
from pagoda.model.catalog.entry import HubFiles, Imported, LocalPath, ModelEntry
from pagoda.model.catalog.gguf_header import read_gguf_header
from pagoda.model.engines import KINDS

PACKAGES = {
    "llamacpp": ("xllamacpp",),
    "onnxruntime": ("onnxruntime", "onnx", "tokenizers"),
    "transformers": ("torch", "transformers", "llguidance"),
    "vllm": ("vllm",),
}
"""What each engine cannot run without."""
CATALOG_SAYS = "as its catalog entry says"
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the choice rests on."""

    form: Literal["gguf", "checkpoint"]
    embeds: bool
    cuda: bool
    installed: frozenset[str]
    """Engine kinds whose packages are here."""
    encodes: bool = False
    """Whether a GGUF file holds an encoder of BERT's shape."""


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """An engine kind, and in a few words why."""

    engine: str
    reason: str


def choose(facts: Facts) -> Choice:
    """The engine for a model. Raises ``Unavailable`` saying what to install when none is there."""
    if facts.encodes and "onnxruntime" in facts.installed:
        return Choice("onnxruntime", "GGUF file of a BERT encoder")
    if facts.form == "gguf":
        return _have(facts, "llamacpp", "GGUF file", "pip install xllamacpp")
    what = "safetensors checkpoint"
    if facts.cuda and "vllm" in facts.installed and not facts.embeds:
        return Choice("vllm", f"{what}, CUDA and vllm installed")
    if facts.embeds:
        why = f"{what} of an embedding model"
    elif facts.cuda:
        why = f"{what}, CUDA without vllm"
    else:
        why = f"{what}, no GPU"
    return _have(facts, "transformers", why, "pip install 'pagoda-llm[train]'")


def _have(facts: Facts, engine: str, why: str, install: str) -> Choice:
    if engine not in facts.installed:
        raise Unavailable(
            f"A {why} needs the engine {engine}, which is not installed: run `{install}`.",
            code="not_installed",
            retryable=False,
        )
    return Choice(engine, why)


def choose_for(entry: ModelEntry, path: Path | None, found: Callable[[str], object] = find_spec) -> Choice:
    """The engine for an entry whose files lie at ``path``; an entry that names its own way keeps its engine."""
    if path is None or not isinstance(entry.source, LocalPath | HubFiles | Imported):
        return Choice(entry.engine, CATALOG_SAYS)
    installed = frozenset(
        kind
        for kind, packages in PACKAGES.items()
        if kind in KINDS and all(found(package) is not None for package in packages)
    )
    return choose(
        Facts(
            form="checkpoint" if path.is_dir() else "gguf",
            encodes=not path.is_dir() and read_gguf_header(path).encodes,
            embeds=entry.task == "embedding",
            cuda=_DRIVER.exists(),
            installed=installed,
        )
    )
