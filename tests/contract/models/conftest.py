"""The built-in models as ``pagoda models pull --builtin`` left them on this machine; tests never fetch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pagoda.core.configuration import load_settings
from pagoda.core.errors import Unavailable
from pagoda.model.catalog.opening import Shelf, open_shelf


def _skip_or_fail(reason: str) -> None:
    if os.environ.get("PAGODA_REQUIRE") == "all":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def skip_or_fail() -> Callable[[str], None]:
    """Skips, or fails where everything is required (``PAGODA_REQUIRE=all``)."""
    return _skip_or_fail


@pytest.fixture(scope="session")
def builtin_models() -> Shelf:
    environ = {name: value for name, value in os.environ.items() if name in ("HOME", "XDG_DATA_HOME", "PAGODA_HOME")}
    if chosen := os.environ.get("PAGODA_MODELS_DIRECTORY"):
        environ["PAGODA_MODELS_DIRECTORY"] = chosen
    shelf = open_shelf(load_settings({"models.offline": True}, environ, Path("/nonexistent")))
    for entry in shelf.catalog.entries():
        if entry.builtin and not entry.optional:
            try:
                shelf.store.locate(entry)
            except Unavailable as error:
                _skip_or_fail(f"{error.message} (or `make install`)")
    return shelf
