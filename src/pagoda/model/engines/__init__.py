"""Engines: one file a kind says how to launch it, what it can do, what memory it needs, and its dialect.

Every engine is a process (or a remote address) that speaks the OpenAI HTTP API; ``openai.py`` speaks it back, and a
kind overrides only where its engine differs. Processes are started and watched by ``pagoda.service.supervisor``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import pagoda
from pagoda.core.errors import InvalidRequest

if TYPE_CHECKING:
    from pagoda.model.engines.contract import EngineKind

KINDS = {
    "llamacpp": "pagoda.model.engines.llamacpp:LlamaCpp",
    "onnxruntime": "pagoda.model.engines.onnxruntime:OnnxRuntime",
    "transformers": "pagoda.model.engines.transformers:Transformers",
    "vllm": "pagoda.model.engines.vllm:Vllm",
    "remote": "pagoda.model.engines.remote:Remote",
    "fake": "pagoda.model.engines.fake:Fake",
}


@cache
def engine_kind(name: str) -> EngineKind:
    """The engine kind of that name, which keeps nothing. Raises ``InvalidRequest`` naming those there are."""
    if name not in KINDS:
        raise InvalidRequest(f"There is no engine named {name!r}; there are: {', '.join(KINDS)}.", param="engine")
    module, _, attribute = KINDS[name].partition(":")
    kind: EngineKind = getattr(import_module(module), attribute)()
    return kind


_DISTRIBUTIONS = {
    "llamacpp": ("xllamacpp",),
    "onnxruntime": ("onnxruntime", "tokenizers"),
    "transformers": ("transformers", "torch"),
    "vllm": ("vllm",),
}


@cache
def engine_version(name: str) -> str:
    """The versions of what computes an engine kind's answers: this package, and the engine's own where it has one."""
    found = [pagoda.__version__]
    for distribution in _DISTRIBUTIONS.get(name, ()):
        try:
            found.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError:  # an extra that is not installed computes nothing
            continue
    return ", ".join(found)
