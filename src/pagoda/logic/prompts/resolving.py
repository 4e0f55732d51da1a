"""The one seam at which a reference to a prompt becomes a version of it.

Whoever asks for a prompt (a chat request, a command, a comparison) goes through ``PromptSource.resolve``. An experiment
that is attached to a label joins here, as a ``Chooser``; callers do not know of it.
"""

from __future__ import annotations

from typing import Protocol

from pagoda.core.types import Call
from pagoda.logic.prompts.prompt import PromptReference, PromptVersion

LIVE = "production"
"""The label of what is live; a reference that names neither version nor label means it."""


def reference_from(text: str) -> PromptReference:
    """``summary``, ``summary@3`` or ``summary@staging`` as a reference."""
    name, _, which = text.partition("@")
    if which.isdecimal():
        return PromptReference(name=name, version=int(which))
    return PromptReference(name=name, label=which or None)


class Chooser(Protocol):
    """An experiment's say in what a label means for one call."""

    def __call__(self, call: Call, name: str, label: str) -> int | None:
        """The version that this call gets in place of the label's, or ``None`` for the label's own.

        Asked for every resolution by a label (the implied ``production`` too), on the event loop: it answers from
        memory. ``call`` says whose prompt it is (``tenant``) and for whom it is asked (``unit``, ``user``, ``key_id``).
        """
        ...


class PromptSource(Protocol):
    """Where prompts are found."""

    async def resolve(self, reference: PromptReference, call: Call) -> PromptVersion:
        """The version that is meant, for the call's tenant. Raises ``NotFound`` and ``StoreError``.

        From memory; the database is read only for a version that this process has not used before.
        """
        ...
