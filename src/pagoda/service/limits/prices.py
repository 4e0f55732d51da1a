"""What tokens cost: the operator's price table, in whole billionths of its currency; no floating point anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from pagoda.core.errors import ConfigError
from pagoda.core.settings import Prices
from pagoda.service.keys.key import NANO

MILLION = 1_000_000
_MOST = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """Billionths of the currency for a million tokens: of prompts, of prompts read from a cache, of answers."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def cost(self, prompt: int, cached: int, completion: int) -> int:
        """Billionths for a call, rounded up to a whole one."""
        whole = (prompt - cached) * self.input + cached * self.cached + completion * self.output
        return -(-whole // MILLION)

    def worst(self, prompt: int, completion: int) -> int:
        """The most that such a call can cost."""
        return -(-(prompt * max(self.input, self.cached) + completion * self.output) // MILLION)

    def affords(self, money: int, prompt: int) -> int | None:
        """Tokens of an answer that ``money`` pays for after the prompt; below zero: not even that. ``None``: any."""
        left = money * MILLION - prompt * max(self.input, self.cached)
        if left < 0:
            return -1
        return left // self.output if self.output else None


FREE = Price()


class PriceTable:
    """Prices by model id; ``*`` is for all others."""

    def __init__(self, currency: str, prices: Mapping[str, Price]) -> None:
        self.currency = currency
        self._prices = dict(prices)

    def of(self, model: str) -> Price:
        """The price of a model; free when the table does not name it."""
        return self._prices.get(model) or self._prices.get("*", FREE)


def price_table(settings: Prices) -> PriceTable:
    """The table that settings hold. Raises ``ConfigError`` with every mistake."""
    mistakes: list[str] = []
    prices: dict[str, Price] = {}
    for model, said in settings.models.items():
        try:
            prices[model] = read_price(said)
        except ValueError as error:
            mistakes.append(f"prices.models.{model} = {said!r}: {error}")
    if mistakes:
        raise ConfigError(mistakes)
    return PriceTable(settings.currency, prices)


def read_price(said: str) -> Price:
    """The price written as ``input/cached/output`` (or ``input/output``) a million tokens, such as ``0.15/0.075/0.60``.

    Raises ``ValueError``.
    """
    parts = [part.strip() for part in said.split("/")]
    if len(parts) == 2:
        parts.insert(1, parts[0])
    if len(parts) != 3:
        raise ValueError("must be input/cached/output or input/output, a million tokens each, such as 0.15/0.075/0.60")
    return Price(*(read_money(part) for part in parts))


def read_money(said: str) -> int:
    """A decimal number of the currency in whole billionths. Raises ``ValueError``."""
    try:
        value = Decimal(said)
    except InvalidOperation:
        raise ValueError(f"{said!r} is no decimal number") from None
    if not value.is_finite() or not 0 <= value <= _MOST:
        raise ValueError(f"{said} must lie between 0 and {_MOST:,}")
    nano = value * NANO
    if nano != int(nano):
        raise ValueError(f"{said} is finer than a billionth")
    return int(nano)


def spell_money(nano: int, currency: str) -> str:
    """An amount for people, exact: ``0.0042 USD``."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, part = divmod(nano, NANO)
    fraction = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{fraction} {currency}"
