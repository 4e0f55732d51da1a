"""How an encoder shares texts out into batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

from pagoda.model.engines.onnxruntime_child.encoder import batches


@given(st.lists(st.integers(1, 512), max_size=200))
def test_batches_hold_each_text_once_and_little_padding(lengths: list[int]) -> None:
    found = list(batches(lengths))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= 256
    assert [lengths[place] for batch in found for place in batch] == sorted(lengths)
