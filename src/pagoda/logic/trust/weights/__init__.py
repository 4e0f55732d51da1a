"""Coefficients that were fitted on public sets, as JSON with a card: what, on which data, how to make them anew.

``python -m benchmarks.trust FOLDER collect fit`` writes them.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

VERSION = 1


@cache
def read_weights(name: str) -> dict[str, Any]:
    """A file of this package."""
    text = resources.files(__package__).joinpath(f"{name}-{VERSION}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
