"""Pagoda: build, tune, serve, guard and watch applications on large language models.

``pagoda.connect()`` is the way in for programs; nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda.application.client import AsyncClient, Client, connect
    from pagoda.application.optimizing import PromptOptimizer
    from pagoda.core.errors import PagodaError

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "PagodaError", "PromptOptimizer", "__version__", "connect"]

_HOMES = {
    "AsyncClient": "pagoda.application.client",
    "Client": "pagoda.application.client",
    "connect": "pagoda.application.client",
    "PagodaError": "pagoda.core.errors",
    "PromptOptimizer": "pagoda.application.optimizing",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pagoda' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
