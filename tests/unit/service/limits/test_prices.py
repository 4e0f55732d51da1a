"""Prices and bounds: whole numbers only, all mistakes told, and no request can use more than its worst case."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import ConfigError
from pagoda.core.settings import Prices
from pagoda.core.types import Embed, Generation
from pagoda.service.keys.key import NANO
from pagoda.service.limits.account import period_of, seconds_left
from pagoda.service.limits.prices import Price, price_table, read_price, spell_money
from pagoda.service.limits.standing import spell_seconds
from pagoda.service.limits.worst import worst_embedding, worst_generation

COUNTS = st.integers(0, 10**7)
NANOS = st.integers(0, 10**12)


def test_a_price_is_written_as_people_write_it() -> None:
    assert read_price("0.15/0.075/0.60") == Price(150_000_000, 75_000_000, 600_000_000)
    assert read_price("2 / 8") == Price(2 * NANO, 2 * NANO, 8 * NANO)


def test_all_mistakes_of_a_table_are_told() -> None:
    table = {"a": "1", "b": "x/1/1", "c": "-1/1/1", "d": "0.0000000001/0/0", "e": "1/NaN/1", "ok": "1/1"}
    with pytest.raises(ConfigError) as caught:
        price_table(Prices(models=table))
    assert [mistake.split(" = ")[0] for mistake in caught.value.mistakes] == [
        f"prices.models.{name}" for name in "abcde"
    ]


def test_a_model_without_a_price_takes_the_stars_and_else_is_free() -> None:
    table = price_table(Prices(models={"m": "1/1", "*": "2/2"}))
    assert (table.of("m").input, table.of("other").input) == (NANO, 2 * NANO)
    assert price_table(Prices()).of("m") == Price()


@given(NANOS, NANOS, NANOS, COUNTS, COUNTS, COUNTS)
def test_costs_are_exact_and_never_above_the_worst(
    a: int, b: int, c: int, prompt: int, cached: int, answer: int
) -> None:
    price, cached = Price(a, b, c), min(cached, prompt)
    exact = Fraction((prompt - cached) * a + cached * b + answer * c, 1_000_000)
    cost = price.cost(prompt, cached, answer)
    assert 0 <= cost - exact < 1
    assert cost <= price.worst(prompt, answer)


@given(NANOS, NANOS, NANOS, COUNTS, st.integers(0, 10**18))
def test_what_money_affords_it_pays_for_and_one_token_more_it_does_not(
    a: int, b: int, c: int, prompt: int, money: int
) -> None:
    price = Price(a, b, c)
    answer = price.affords(money, prompt)
    if answer is None:
        assert price.worst(prompt, 10**9) <= money
    elif answer < 0:
        assert price.worst(prompt, 0) > money
    else:
        assert price.worst(prompt, answer) <= money < price.worst(prompt, answer + 1)


def test_money_is_spelled_exactly() -> None:
    assert spell_money(4_200_000, "USD") == "0.0042 USD"
    assert spell_money(1, "EUR") == "0.000000001 EUR"
    assert spell_money(-12 * NANO, "USD") == "-12.00 USD"


def test_durations_read_as_openai_writes_them() -> None:
    assert [spell_seconds(each) for each in (0.02, 1.5, 60, 360, 3661)] == ["20ms", "1.5s", "1m0s", "6m0s", "1h1m1s"]


def test_periods_follow_utc() -> None:
    last = 1_798_761_599.0  # 2026-12-31 23:59:59 UTC
    assert [period_of(each, last) for each in ("total", "day", "month")] == ["total", "2026-12-31", "2026-12"]
    assert [seconds_left(each, last) for each in ("total", "2026-12-31", "2026-12")] == [None, 1.0, 1.0]
    assert period_of("month", last + 1) == "2027-01"


@given(st.lists(st.text(), max_size=5))
def test_a_conversations_bytes_bound_its_tokens(texts: list[str]) -> None:
    messages = tuple({"role": "user", "content": text} for text in texts)
    worst = worst_generation(Generation(model="m", messages=messages, n=3, max_tokens=7), 128, None)
    assert worst.prompt >= 128 + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    assert (worst.answer, worst.choices) == (7, 3)


def test_token_ids_are_counted_and_a_context_bounds_all() -> None:
    assert worst_generation(Generation(model="m", prompt=(1, 2, 3)), 128, None).prompt == 4
    assert worst_generation(Generation(model="m", prompt="x" * 1000), 128, 100).prompt == 100


def test_a_text_that_grows_when_it_is_normalised_is_bounded_as_it_grows() -> None:
    grows = "\ufdfa"  # one character of three bytes, eighteen characters after NFKC
    assert worst_embedding(Embed(model="m", inputs=(grows,)), 128).prompt >= 18
