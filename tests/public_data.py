"""Public data sets, which are no part of the project: beside it in ``../shared/data``, or where an environment says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def public_data(name: str) -> Path:
    """The folder of a public data set. A test without it is skipped, or fails where nothing may be missing."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PAGODA_PUBLIC_DATA", beside)) / name
    if not folder.is_dir():
        reason = f"the public data ../shared/data/{name} is not there"
        if os.environ.get("PAGODA_REQUIRE") == "all":
            pytest.fail(f"PAGODA_REQUIRE=all: {reason}")
        pytest.skip(reason)
    return folder
