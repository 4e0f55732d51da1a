"""The kinds of run there are: names for functions, passed in by ``application``; the ground knows none itself."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from pagoda.core.errors import NotFound, StoreError
from pagoda.core.runs.record import KIND
from pagoda.core.types import Json

if TYPE_CHECKING:
    from pagoda.core.runs.context import RunContext

RunResult: TypeAlias = Mapping[str, Json] | None
RunFunction: TypeAlias = "Callable[[RunContext], RunResult | Awaitable[RunResult]]"
"""The work: gets its context; what it returns is kept as the run's result."""

RunTarget: TypeAlias = "str | RunFunction"
"""A function, or where it is: ``package.module:function``, so that nothing is imported before it is needed."""


class RunRegistry:
    """Kinds of run by name."""

    def __init__(self, kinds: Mapping[str, RunTarget]) -> None:
        wrong = [kind for kind in kinds if not KIND.fullmatch(kind)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} cannot name a kind of run: use lower-case letters, digits and hyphens")
        self._kinds = dict(kinds)

    @property
    def names(self) -> tuple[str, ...]:
        """All kinds, sorted."""
        return tuple(sorted(self._kinds))

    def check(self, kind: str) -> None:
        """Raise ``NotFound`` unless there is such a kind."""
        if kind not in self._kinds:
            there_are = ", ".join(self.names) or "none"
            raise NotFound(f"There is no kind of run named {kind!r}; there are: {there_are}.", param="kind")

    def resolve(self, kind: str) -> RunFunction:
        """The function of a kind."""
        self.check(kind)
        target = self._kinds[kind]
        if not isinstance(target, str):
            return target
        module, _, name = target.partition(":")
        try:
            function: RunFunction = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise StoreError(
                f"Runs of kind {kind!r} need {target}, which cannot be imported ({error}): install the missing extra.",
                code="run_kind",
            ) from error
        return function
