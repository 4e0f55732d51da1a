"""What this process holds of one account's budget in one period, as a pure core: no clock, no task, no database.

The ledger hands out slices of a budget and counts them as leased until it hears what became of them. A slice is spent
here in memory: ``free`` may be reserved, ``reserved`` belongs to calls under way, ``unwritten`` was used and is not yet
in the ledger. In the units that the account bounds (tokens, money) the three together are what the ledger has leased to
this purse, always; the other unit is only counted as it is used.
"""

from __future__ import annotations

from pagoda.service.limits.account import NOTHING, Account, Amount


class Purse:
    """One account's slice. Plain numbers inside, since every request passes here; amounts outside."""

    __slots__ = (
        "_free_money",
        "_free_tokens",
        "_reserved_money",
        "_reserved_tokens",
        "account",
        "bounds_money",
        "bounds_tokens",
        "idle",
        "period",
        "unwritten",
    )

    def __init__(self, account: Account, period: str) -> None:
        self.account = account
        self.period = period
        self.bounds_tokens = account.limits.budget_tokens is not None
        self.bounds_money = account.limits.budget_money is not None
        self._free_tokens = self._free_money = 0
        self._reserved_tokens = self._reserved_money = 0
        self.unwritten = NOTHING
        self.idle = 0
        """Looks since anything was reserved; an idle purse gives its slice back."""

    @property
    def free(self) -> Amount:
        """What may be reserved."""
        return Amount(self._free_tokens, self._free_money)

    @property
    def reserved(self) -> Amount:
        """What belongs to calls under way."""
        return Amount(self._reserved_tokens, self._reserved_money)

    def bounded(self, amount: Amount) -> Amount:
        """The part of an amount that is bounded here."""
        return Amount(amount.tokens * self.bounds_tokens, amount.money * self.bounds_money)

    @property
    def leased(self) -> Amount:
        """What the ledger counts as being here."""
        return self.free + self.reserved + self.bounded(self.unwritten)

    @property
    def empty(self) -> bool:
        """Whether nothing is here or on its way."""
        return not (self.free or self.reserved or self.unwritten)

    def holds(self, tokens: int, money: int) -> bool:
        """Whether that much can be reserved."""
        return (not self.bounds_tokens or self._free_tokens >= tokens) and (
            not self.bounds_money or self._free_money >= money
        )

    def lacks(self, wanted: Amount) -> Amount:
        """What has to be taken from the ledger before this can be reserved."""
        tokens = max(0, wanted.tokens - self._free_tokens) if self.bounds_tokens else 0
        return Amount(tokens, max(0, wanted.money - self._free_money) if self.bounds_money else 0)

    def take(self, granted: Amount) -> None:
        """The ledger has leased this."""
        self._free_tokens += granted.tokens
        self._free_money += granted.money

    def void(self) -> None:
        """What is free here is no longer leased."""
        self._free_tokens = self._free_money = 0

    def reserve(self, amount: Amount) -> bool:
        """Set aside for a call; all or nothing."""
        if not self.holds(amount.tokens, amount.money):
            return False
        if self.bounds_tokens:
            self._free_tokens -= amount.tokens
            self._reserved_tokens += amount.tokens
        if self.bounds_money:
            self._free_money -= amount.money
            self._reserved_money += amount.money
        self.idle = 0
        return True

    def settle(self, reserved: Amount, used: Amount) -> None:
        """A call is over: what it used waits to be written, the rest is free again."""
        if self.bounds_tokens:
            self._reserved_tokens -= reserved.tokens
            self._free_tokens += reserved.tokens - used.tokens
        if self.bounds_money:
            self._reserved_money -= reserved.money
            self._free_money += reserved.money - used.money
        if used is not NOTHING:
            self.unwritten += used

    def written(self, used: Amount) -> None:
        """The ledger has counted this as spent, and no longer as leased."""
        self.unwritten -= used

    def spare(self, patience: int) -> Amount:
        """What goes back to the ledger now: everything free after ``patience`` looks at which nothing had happened.

        A debt (a call used more than its worst case) goes at once, so that the ledger's books stay right.
        """
        self.idle += 1
        back = self.free
        if self.idle <= patience:
            back = Amount(min(0, back.tokens), min(0, back.money))
        self._free_tokens -= back.tokens
        self._free_money -= back.money
        return back
