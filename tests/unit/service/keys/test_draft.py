"""What people write when they make keys: spans, dates, money, scopes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.service.keys.draft import Draft, expiry_from, nano_from, scopes_from, seconds_from
from pagoda.service.keys.key import NANO, Limits
from pagoda.service.keys.secret import has_form, hash_of, new_secret, shown_of


@pytest.mark.parametrize(
    ("written", "span"), [("30d", timedelta(days=30)), ("2h", timedelta(hours=2)), ("1w", timedelta(weeks=1))]
)
def test_a_span_counts_from_now(written: str, span: timedelta) -> None:
    assert abs(expiry_from(written) - datetime.now(UTC) - span) < timedelta(seconds=5)
    assert seconds_from(written) == span.total_seconds()


def test_a_date_means_its_end_and_a_time_keeps_its_zone() -> None:
    assert expiry_from("2031-01-31") == datetime(2031, 2, 1, tzinfo=UTC)
    assert expiry_from("2031-01-31T10:00:00+02:00") == datetime(2031, 1, 31, 8, tzinfo=UTC)
    assert expiry_from("2031-01-31T10:00") == datetime(2031, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize("written", ["", "soon", "30", "d30", "-1d", "2031-13-01", "9999-12-31", "1e9d"])
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequest):
        expiry_from(written)


@given(st.decimals(min_value=0, max_value=10**9, places=9))
def test_money_is_exact_to_a_billionth(amount: Decimal) -> None:
    assert nano_from(str(amount)) == amount * NANO


@pytest.mark.parametrize("written", ["-1", "NaN", "Infinity", "five", "", "1e30"])
def test_what_is_no_money_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequest):
        nano_from(written)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "line\nbreak"},
        {"team": "a team"},
        {"scopes": frozenset()},
        {"models": ()},
        {"priority": 100},
        {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
        {"limits": Limits(concurrent=-1)},
    ],
)
def test_a_key_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Draft(**{"name": "fine", **fields})


def test_scopes_by_name() -> None:
    assert scopes_from([" monitor", "operate ", ""]) == {"monitor", "operate"}
    with pytest.raises(InvalidRequest, match="no scope 'everything'"):
        scopes_from(["everything"])


def test_secrets_differ_have_their_form_and_show_little() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    for secret in made:
        assert has_form(secret.encode())
        assert len(shown_of(secret)) == 8
        assert len(hash_of(secret.encode())) == 64
