"""The step around every model call: reserve its worst case from all of its key's accounts, settle what it used.

A call without a key (this machine's own user, Pagoda itself) is recorded as usage of ``local`` and not limited.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pagoda.core.errors import LimitExceeded, StoreError
from pagoda.core.settings import Limits as LimitSettings
from pagoda.core.types import Call, Embed, Generation, Score
from pagoda.service.keys.key import Key, Keys
from pagoda.service.limits.account import NOTHING, Account, Amount, Ask, Refusal, accounts_of, period_of, seconds_left
from pagoda.service.limits.books import Books, left_over
from pagoda.service.limits.charge import Charge
from pagoda.service.limits.entries import Row, Taken
from pagoda.service.limits.meter import BUSY_SECONDS, Grant
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.limits.prices import Price, PriceTable, spell_money
from pagoda.service.limits.purse import Purse
from pagoda.service.limits.standing import spell_seconds, tell
from pagoda.service.limits.store import MeterStore
from pagoda.service.limits.worst import Worst, worst_embedding, worst_generation, worst_score

if TYPE_CHECKING:
    from pagoda.model.catalog.entry import ModelEntry

LOCAL = "local"
QUOTA = "insufficient_quota"
_WORDS = {"requests": "requests a minute", "tokens": "tokens a minute", "concurrent": "requests at once"}


@dataclass(frozen=True, slots=True)
class _Holder:
    """A key with its accounts, sorted out once."""

    key: Key
    rated: tuple[Account, ...]
    budgeted: tuple[Account, ...]
    bounds_tokens: bool


@dataclass(slots=True)
class _Plan:
    """What a call is going to reserve."""

    worst: Worst
    price: Price
    answer: int
    """Tokens of all choices together."""
    asked: bool
    """Whether the request itself says how long its answer may be."""

    def amount(self, answer: int) -> Amount:
        prompt = self.worst.prompt
        return Amount(prompt + answer, self.price.worst(prompt, answer))

    @property
    def least(self) -> int:
        """Tokens without which there is no answer at all: one a choice."""
        return min(self.answer, self.worst.choices)


class Limiter:
    """Holds the limits of all keys in this process."""

    def __init__(
        self,
        settings: LimitSettings,
        prices: PriceTable,
        stores: tuple[MeterStore, Books],
        metrics: LimitMetrics,
        keys: Keys | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.charges_hits = settings.charge_cache_hits
        self.books = stores[1]
        self._meter = stores[0]
        self._settings = settings
        self._prices = prices
        self._metrics = metrics
        self._keys = keys
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._open = 0
        metrics.open.set_function(lambda: self._open)

    def start(self) -> None:
        """Begin to write usage."""
        self.books.start()
        self._meter.start()

    async def close(self) -> None:
        """Write what is left."""
        await self.books.close()
        await self._meter.close()

    async def generation(
        self, model: ModelEntry, request: Generation, call: Call, context: int | None
    ) -> tuple[Charge, Generation]:
        """Reserve a generation's worst case; the request comes back with the length it may have at most.

        Raises ``LimitExceeded``, and ``StoreError`` where nobody can tell.
        """
        if call.key_id is None:  # most of a laptop's calls: nothing is computed for them
            return self._charge(model, call, 0), request
        worst = worst_generation(request, self._settings.template_tokens, context)
        charge = await self._opened(model, call, worst)
        if charge.answer_cap is not None:
            request = replace(request, max_tokens=charge.answer_cap)
        return charge, request

    async def embedding(self, model: ModelEntry, request: Embed, call: Call) -> Charge:
        """Reserve an embedding request's worst case."""
        return await self._opened(model, call, worst_embedding(request, self._settings.template_tokens))

    async def score(self, model: ModelEntry, request: Score, call: Call) -> Charge:
        """Reserve a scoring request's worst case."""
        return await self._opened(model, call, worst_score(request))

    async def question(self, model: ModelEntry, call: Call) -> Charge:
        """Let in a call that uses no tokens (tokenising): it counts as a request."""
        return await self._opened(model, call, Worst(0))

    def settle(self, charge: Charge, status: str) -> None:
        """A call is over: count what it used, in the meter, the purses and the ledger."""
        used = charge.used()
        price = self._prices.of(charge.model)
        money = price.cost(used.prompt, used.cached, used.completion)
        tokens = used.prompt + used.completion
        if charge.grant is not None:
            self._meter.settle(charge.grant, tokens)
            self._open -= 1
        if charge.purses:
            spent = Amount(tokens, money)
            for purse in charge.purses:
                purse.settle(charge.reserved, spent)
        self._metrics.charged(charge.team, charge.key_id, (used.prompt, used.cached, used.completion), money)
        self.books.record(
            Row(
                at=self._clock(),
                key_id=charge.key_id,
                team=charge.team,
                model=charge.model,
                endpoint=charge.endpoint,
                prompt=used.prompt,
                cached=used.cached,
                completion=used.completion,
                money=money,
                status=status,
                estimated=used.estimated,
                request_id=charge.request_id,
            )
        )

    def _charge(self, model: ModelEntry, call: Call, prompt: int) -> Charge:
        who = (call.key_id or LOCAL, call.tenant, call.route or call.purpose, call.request_id)
        return Charge(self, model.id, prompt, who)

    async def _opened(self, model: ModelEntry, call: Call, worst: Worst) -> Charge:
        charge = self._charge(model, call, worst.prompt)
        if call.key_id is None:
            return charge
        holder = await self._holder(call.key_id)
        if not (holder.rated or holder.budgeted):
            return charge
        plan = self._plan(model, worst)
        purses: tuple[Purse, ...] = ()
        if holder.budgeted:
            purses = tuple([self.books.purse(account) for account in holder.budgeted])
            await self._fill(purses, plan, call)
        charge.purses, charge.reserved = purses, plan.amount(plan.answer)
        for purse in purses:
            purse.reserve(charge.reserved)
        if holder.rated:
            try:
                charge.grant = await self._granted(holder.rated, plan, call)
            except BaseException:
                for purse in purses:
                    purse.settle(charge.reserved, NOTHING)
                raise
            tell(charge.grant.standing)
            self._open += 1
        if holder.bounds_tokens and plan.answer:
            self._fit(charge, plan)
        return charge

    def _fit(self, charge: Charge, plan: _Plan) -> None:
        """Give back what the meter did not grant, and say how long the answer may be."""
        worst, each = plan.worst, plan.answer // plan.worst.choices
        if charge.grant is not None:
            each = (charge.grant.tokens - worst.prompt) // worst.choices
        if each * worst.choices < plan.answer:
            less = plan.amount(each * worst.choices)
            for purse in charge.purses:
                purse.settle(charge.reserved - less, NOTHING)
            charge.reserved = less
        ends_before = worst.answer is None and worst.context is not None and each >= worst.context
        if each != worst.answer and not ends_before:
            charge.answer_cap = each

    def _plan(self, model: ModelEntry, worst: Worst) -> _Plan:
        each = self._settings.answer_tokens if worst.answer is None else worst.answer
        if worst.context is not None:
            each = min(each, worst.context)
        return _Plan(worst, self._prices.of(model.id), each * worst.choices, worst.answer is not None)

    async def _fill(self, purses: tuple[Purse, ...], plan: _Plan, call: Call) -> None:
        """See that all purses hold the worst case; where they cannot, shorten the answer, or refuse."""
        wanted = plan.amount(plan.answer)
        if all([purse.holds(wanted.tokens, wanted.money) for purse in purses]):
            for purse in purses:
                self.books.fill_ahead(purse, wanted)
            return
        least = plan.amount(plan.least)
        while short := [purse for purse in purses if purse.lacks(plan.amount(plan.answer))]:
            for purse in short:
                await self._fill_one(purse, plan, least, call)

    async def _fill_one(self, purse: Purse, plan: _Plan, least: Amount, call: Call) -> None:
        """Have a purse filled once. Of what came others, who waited too, may have taken the most: as long as the ledger
        has more, that is no reason to shorten anything."""
        wanted, taken = plan.amount(plan.answer), None
        try:
            taken = await self.books.fill(purse, least, wanted)
        except StoreError:
            if self._settings.when_store_is_gone == "refuse":
                raise
            self.books.lend(purse, purse.lacks(wanted))
        lacking = purse.lacks(wanted)
        if not lacking or taken is None or left_over(purse, taken, lacking):
            return
        if (lacking := purse.lacks(least)) and not left_over(purse, taken, lacking):
            raise self._used_up(purse, least, taken, call)
        if not lacking:
            plan.answer = min(plan.answer, _affordable(purse, plan))

    async def _granted(self, accounts: tuple[Account, ...], plan: _Plan, call: Call) -> Grant:
        most = plan.worst.prompt + plan.answer
        least = plan.worst.prompt + plan.least
        if plan.asked:  # it waits for the next minute rather than be cut short, where that minute can hold it
            bounds = [account.limits.tokens_per_minute for account in accounts]
            if all(bound is None or bound >= most for bound in bounds):
                least = most
        decision = await self._meter.reserve(accounts, Ask(least, most, call.parent is None))
        if isinstance(decision, Refusal):
            raise self._refused(decision, call)
        return decision

    async def _holder(self, key_id: str) -> _Holder:
        if self._keys is None:
            raise RuntimeError("a call names a key, and nobody knows keys here")
        key = self._keys.get(key_id) or await self._keys.find(key_id)
        known = self._holders.get(key_id)
        if known is None or known.key is not key:
            accounts = accounts_of(key)
            rated = tuple(account for account in accounts if account.has_rates)
            budgeted = tuple(account for account in accounts if account.has_budget)
            bounds = bool(budgeted) or any(account.limits.tokens_per_minute is not None for account in rated)
            known = self._holders[key_id] = _Holder(key, rated, budgeted, bounds)
        return known

    def _refused(self, refusal: Refusal, call: Call) -> LimitExceeded:
        tell(refusal.standing)
        self._metrics.refusals.labels(call.tenant, refusal.limit).inc()
        whose = _spell_account(refusal.account)
        text = f"{whose} allows {refusal.bound:,} {_WORDS[refusal.limit]}"
        if refusal.limit == "tokens":
            text += f", {refusal.used:,} are used, and this request needs up to {refusal.needed:,}"
        if refusal.retry_after is None:
            return LimitExceeded(f"{text}: it can never be let in. Shorten it, or have the limit raised.")
        wait = spell_seconds(refusal.retry_after)
        return LimitExceeded(f"{text}. Ask again in {wait}.", retry_after=refusal.retry_after)

    def _used_up(self, purse: Purse, least: Amount, taken: Taken | None, call: Call) -> LimitExceeded:
        """The refusal of a call for which a budget leaves nothing; one that may be let in soon says when."""
        limits = purse.account.limits
        gone = NOTHING if taken is None else taken.spent
        in_money = not (limits.budget_tokens is not None and purse.lacks(least).tokens)
        self._metrics.refusals.labels(call.tenant, "budget_money" if in_money else "budget_tokens").inc()
        bound, spent, needed = limits.budget_tokens or 0, gone.tokens, least.tokens
        if in_money:
            bound, spent, needed = limits.budget_money or 0, gone.money, least.money
        currency = self._prices.currency

        def spell(number: int) -> str:
            return spell_money(number, currency) if in_money else f"{number:,} tokens"

        whose = _spell_account(purse.account.id)
        period = {"total": "in all", "day": "a day", "month": "a month"}[limits.period]
        text = f"The budget of {whose.lower()} is {spell(bound)} {period}"
        if bound - spent - (purse.unwritten.money if in_money else purse.unwritten.tokens) >= needed:
            text += ", and requests under way hold what is left. Ask again in a second."
            return LimitExceeded(text, retry_after=BUSY_SECONDS)
        begins = seconds_left(period_of(limits.period, self._clock()), self._clock())
        then = "Have it raised" if begins is None else f"It begins anew in {spell_seconds(begins)}"
        text += f"; {spell(spent)} are spent, and this request needs at least {spell(needed)}. {then}."
        return LimitExceeded(text, code=QUOTA)


def _affordable(purse: Purse, plan: _Plan) -> int:
    """Tokens of all choices together that a purse pays for."""
    prompt, most = plan.worst.prompt, plan.answer
    if purse.bounds_tokens:
        most = min(most, purse.free.tokens - prompt)
    if purse.bounds_money:
        paid = plan.price.affords(purse.free.money, prompt)
        most = most if paid is None else min(most, paid)
    return most - most % plan.worst.choices if most > 0 else most


def _spell_account(account: str) -> str:
    kind, _, name = account.partition(":")
    return f"Key {name}" if kind == "key" else f"Team {name}"
