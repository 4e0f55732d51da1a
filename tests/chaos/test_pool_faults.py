"""Every fault of a replica under load: all is answered or clearly refused, nothing is lost, nothing told twice."""

from __future__ import annotations

import pytest

from benchmarks.chaos import NAMES, run_scripted
from pagoda.core.settings import Settings


@pytest.mark.parametrize("fault", NAMES)
async def test_under_load_nothing_is_lost_and_nothing_differs(settings: Settings, fault: str) -> None:
    (row,) = await run_scripted(settings, 2.0, (fault,))
    print(row)
    assert row.answered
    assert (row.lost, row.differing) == (0, 0)
    assert row.recovered_s is not None
    assert row.back_s is not None, "the replica did not come back"
    assert row.sent == row.answered + row.clear_error
    if fault != "all gone":
        assert row.clear_error == 0, "two other replicas were there all the time"
