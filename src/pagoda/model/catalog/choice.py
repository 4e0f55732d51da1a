"""Which files of a repository are wanted: one GGUF model in the best small form, or a checkpoint without pickles."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.model.catalog.hub import HubFile, HubRepository

PREFERENCE = (
    "Q4_K_M", "Q5_K_M", "Q4_K_S", "Q5_K_S", "Q6_K", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_XS", "IQ4_NL",
    "Q3_K_M", "Q3_K_L", "MXFP4", "BF16", "F16", "FP16", "F32",
)  # fmt: skip
"""Forms of weights, best choice first: the smallest that keeps quality, then larger ones, then smaller ones."""

CHECKPOINT_PATTERNS = (
    "*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken", "*.spm", "LICENSE*", "README.md",
    "1_Pooling/*.json", "2_Dense/*.json", "2_Dense/*.safetensors",
)  # fmt: skip
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf|\.safetensors)")
_NOT_MODELS = ("mmproj", "imatrix")


def choose_files(repository: HubRepository, wanted: str, task: str = "") -> tuple[HubFile, ...]:
    """The files to fetch, the one an engine opens first.

    ``wanted`` is a file's name, a pattern, or the form of the weights (``Q8_0``); empty means the preferred ones.
    """
    models = [file for file in repository.files if _is_gguf_model(file.name)]
    if wanted:
        return _named(repository, models, wanted)
    if models:
        return _shards(min(models, key=lambda file: (*_rank(file.name), file.name)).name, models)
    return _checkpoint(repository)


def _named(repository: HubRepository, models: list[HubFile], wanted: str) -> tuple[HubFile, ...]:
    exact = [file for file in repository.files if file.name == wanted]
    found = exact or [file for file in models if fnmatch.fnmatch(file.name.lower(), wanted.lower())]
    found = found or [file for file in models if _form(file.name) == wanted.upper()]
    if not found:
        there = ", ".join(file.name for file in models[:8]) or "no GGUF file"
        raise NotFound(f"{repository.name} has no file {wanted!r}; it has {there}.", param="model")
    first = sorted(found, key=lambda file: file.name)[0]
    if not first.name.endswith(".gguf"):
        raise InvalidRequest(f"{first.name} is not a model by itself; name a GGUF file or none.", param="model")
    return _shards(first.name, models)


def _shards(name: str, models: Iterable[HubFile]) -> tuple[HubFile, ...]:
    if not (match := _SHARD.fullmatch(name)):
        return tuple(file for file in models if file.name == name)
    family = [
        file
        for file in models
        if (other := _SHARD.fullmatch(file.name)) and (other["stem"], other["count"]) == (match["stem"], match["count"])
    ]
    return tuple(sorted(family, key=lambda file: file.name))


def _checkpoint(repository: HubRepository) -> tuple[HubFile, ...]:
    weights = [file for file in repository.files if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", file.name)]
    if not weights:
        pickles = any(file.name.endswith((".bin", ".pt", ".pth", ".ckpt")) for file in repository.files)
        why = "only as pickles, which Pagoda never loads" if pickles else "in no form that Pagoda reads"
        message = f"{repository.name} holds weights {why}; choose a repository with GGUF or safetensors files."
        raise InvalidRequest(message, param="model")
    rest = [
        file
        for file in repository.files
        if any(fnmatch.fnmatch(file.name, pattern) for pattern in CHECKPOINT_PATTERNS)
        and file.name.count("/") <= (1 if file.name.startswith(("1_", "2_")) else 0)
    ]
    return (*weights, *rest)


def _is_gguf_model(name: str) -> bool:
    base = name.rsplit("/", 1)[-1].lower()
    return base.endswith(".gguf") and not any(part in base for part in _NOT_MODELS)


def _form(name: str) -> str:
    """The form of a file's weights as its name tells it."""
    base = name.upper()
    found = [form for form in PREFERENCE if re.search(rf"(?<![A-Z0-9]){form}(?![A-Z0-9_])", base)]
    return found[0] if found else ""


def _rank(name: str) -> tuple[int, int]:
    form = _form(name)
    return (PREFERENCE.index(form) if form else len(PREFERENCE), name.count("/"))
