"""One call's account: opened before it, told what happens, settled when it ends, however it ends."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from pagoda.core.errors import PagodaError
from pagoda.core.types import CallDelta, Delta, Embeddings, Event, Scores, Started, Usage
from pagoda.service.limits.account import NOTHING
from pagoda.service.limits.meter import Grant
from pagoda.service.limits.purse import Purse

if TYPE_CHECKING:
    from pagoda.service.limits.limiter import Limiter

CANCELLED = "cancelled"


@dataclass(slots=True)
class Used:
    """What a call is charged for, in tokens."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    estimated: bool = False


class Charge:
    """Use in ``with`` around the call. Costs a request a few microseconds, since most of it is plain fields."""

    __slots__ = (
        "_began",
        "_deltas",
        "_hit",
        "_limiter",
        "_usage",
        "answer_cap",
        "endpoint",
        "grant",
        "key_id",
        "model",
        "prompt",
        "purses",
        "request_id",
        "reserved",
        "team",
    )

    def __init__(self, limiter: Limiter, model: str, prompt: int, who: tuple[str, str, str, str]) -> None:
        self._limiter = limiter
        self.model = model
        self.prompt = prompt
        """The most tokens that the prompt can have."""
        self.key_id, self.team, self.endpoint, self.request_id = who
        self.answer_cap: int | None = None
        """Tokens that each choice may have at most; ``None``: what the request says."""
        self.grant: Grant | None = None
        self.purses: tuple[Purse, ...] = ()
        self.reserved = NOTHING
        self._began = False
        self._hit = False
        self._deltas = 0
        self._usage: Usage | None = None

    def begin(self) -> None:
        """An engine is asked for this very call: from now on its prompt is charged, whatever comes."""
        self._began = True

    def note(self, event: Event) -> None:
        """Take note of what an answer brings."""
        match event:
            case Delta():
                self._deltas += event.pieces
            case CallDelta():
                self._deltas += 1
            case Started():
                self._hit = event.cache == "hit"
            case Usage():
                self._usage = event

    def note_whole(self, answer: Embeddings | Scores) -> None:
        """Take note of an answer that came at once."""
        self._hit = isinstance(answer, Embeddings) and answer.cache == "hit"
        self._usage = Usage(answer.prompt_tokens)

    def used(self) -> Used:
        """What is charged if it ends here: what was counted, else what was seen with all of the prompt's bound."""
        if self._hit and not self._limiter.charges_hits:
            return Used()
        usage = self._usage
        if usage is not None and usage.prompt_tokens:
            return Used(usage.prompt_tokens, min(usage.cached_tokens, usage.prompt_tokens), usage.completion_tokens)
        if usage is not None:  # an address that counts nothing
            return Used(self.prompt, 0, usage.completion_tokens, estimated=self.prompt > 0)
        if self._began or (self._hit and self._deltas):
            return Used(self.prompt, 0, self._deltas, estimated=True)
        return Used()

    def __enter__(self) -> Charge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = error.code if isinstance(error, PagodaError) else CANCELLED
        self._limiter.settle(self, "ok" if error is None else ended)
