"""What tests of training, export and quantisation share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tiny_models import one_torch_thread


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models are faster on one thread, and slow on two that others use."""
    with one_torch_thread():
        yield
