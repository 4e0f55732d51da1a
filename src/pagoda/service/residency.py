"""Which models are in memory: the rules, as a state machine without clock, tasks or processes.

``Supervisor`` tells it what happens (a request wants a model, an engine became ready, a process is gone) and carries
out the actions that come back. Memory is counted in bytes, per pool (host, GPU), against a budget. The rules:

- A model that cannot fit even if everything unpinned left is refused at once, with the arithmetic.
- Models are loaded in the order in which they were first asked for; nobody overtakes the first in line, so nobody
  starves.
- To make room the least recently used idle models leave. A model with requests in flight is never made to leave; but
  one that has been ready for ``quantum`` seconds takes no new requests while another waits for its memory: it drains,
  leaves, and its own new requests wait in line. So two models that are both always busy take turns.
- A failed load refuses those who waited, gives its memory back, and keeps no one from trying again.
- A model that can sleep does so instead of leaving where its weights find room on the host, beside what the first in
  line needs there. Asleep it is one of those that may leave, by the same rules; who wants it wakes it.

    unloaded ──► loading ──► ready ──► draining ──► unloaded
                  │  ▲ ▲        │ crash    │          ▲
                  ▼  └─┼────────┘          ▼          │
                failed └──────────────── asleep ──────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pagoda.model.catalog.disk import spell_bytes
from pagoda.model.engines.contract import Footprint, Memory

State: TypeAlias = Literal["unloaded", "loading", "ready", "draining", "asleep", "failed"]
Ticket: TypeAlias = int
"""A request's place in line; smaller came first."""

NOTHING = Footprint()


@dataclass(frozen=True, slots=True)
class Load:
    """Start the engine of a model; ``again`` when it had crashed."""

    model: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Unload:
    """End the engine of a model; nobody uses it."""

    model: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Have a model leave its GPU memory while its process stays; nobody uses it."""

    model: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Bring a model that sleeps back to its GPU memory."""

    model: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A request may use the model now, and counts as in flight until ``release``."""

    model: str
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Refuse:
    """A request cannot have the model; ``too_large`` when waiting would not help."""

    model: str
    ticket: Ticket
    reason: str
    too_large: bool = False


Action: TypeAlias = Load | Unload | Sleep | Wake | Grant | Refuse


@dataclass(slots=True)
class Resident:
    """What is known of one model."""

    model: str
    need: Memory = field(default_factory=lambda: Memory(weights=0, kv_cache=0, overhead=0))
    """What it will take, estimated before it is loaded."""
    held: Footprint = NOTHING
    """What is set aside for it: the estimate, or what its process was seen to use when that is more."""
    state: State = "unloaded"
    reason: str = ""
    waiting: dict[Ticket, None] = field(default_factory=dict)
    in_flight: int = 0
    ready_since: float = 0.0
    last_used: float = 0.0
    pinned: bool = False
    keep_seconds: float | None = None
    """Idle time after which it leaves; ``None`` follows the general rule, 0 means never."""
    leaving: bool = False
    """An operator wants it gone; requests that come later bring it back."""
    dozing: bool = False
    """It drains to sleep and not to end."""

    @property
    def idle(self) -> bool:
        """Ready or asleep, and nobody uses it or waits for it."""
        return self.state in ("ready", "asleep") and not self.in_flight and not self.waiting

    @property
    def entry(self) -> Footprint:
        """What is set aside while it comes to be ready: until it is awake its weights are on the host too."""
        asleep = self.need.asleep if self.state == "asleep" else None
        return self.need.footprint.at_least(asleep or NOTHING)

    @property
    def freed(self) -> Footprint:
        """What comes free when it has ended, or sleeps, as it is about to."""
        return self.held - self.need.asleep if self.dozing and self.need.asleep else self.held


class Residency:
    """All models of one service process and their share of its memory."""

    def __init__(
        self,
        budget: Footprint,
        *,
        quantum: float,
        idle_seconds: float = 0.0,
        note: Callable[[Resident], None] = lambda resident: None,
    ) -> None:
        self.budget = budget
        self.residents: dict[str, Resident] = {}
        self._quantum = quantum
        self._idle_seconds = idle_seconds
        self._note = note
        """Told of every change of a state, as it happens."""
        self._calm = False
        """Nobody waits for memory and the budget holds: what comes to or goes from a ready model moves no other."""

    @property
    def held(self) -> Footprint:
        """Memory that is set aside now, of all models."""
        return _sum(resident.held for resident in self.residents.values())

    def resident(self, model: str) -> Resident:
        """The model's record; made when it is first named."""
        return self.residents.setdefault(model, Resident(model))

    # -- what happens -------------------------------------------------------------------------------------------------

    def want(self, model: str, need: Memory, ticket: Ticket, now: float) -> list[Action]:
        """A request wants the model. It is granted, refused, or waits."""
        resident = self.resident(model)
        if resident.state in ("unloaded", "failed"):
            resident.need = need
        resident.waiting[ticket] = None
        return list(self._settle(now))

    def use(self, model: str) -> bool:
        """A request wants the model, which is granted at once if nothing else follows from that: ``want`` in short."""
        resident = self.residents.get(model)
        if not self._calm or resident is None or resident.state != "ready" or resident.leaving:
            return False
        resident.in_flight += 1
        return True

    def give_up(self, model: str, ticket: Ticket, now: float) -> list[Action]:
        """A request that waited has left."""
        self.resident(model).waiting.pop(ticket, None)
        return list(self._settle(now))

    def release(self, model: str, now: float) -> list[Action]:
        """A request that was granted has ended."""
        resident = self.resident(model)
        resident.in_flight -= 1
        resident.last_used = now
        if self._calm and resident.state == "ready" and not resident.leaving:
            return []
        return list(self._settle(now))

    def loaded(self, model: str, now: float) -> list[Action]:
        """The engine is ready."""
        resident = self.resident(model)
        if resident.need.asleep:  # its way back took more
            resident.held = resident.need.footprint
        self._become(resident, "ready")
        resident.ready_since = resident.last_used = now
        return [*self._grant(resident), *self._settle(now)]

    def failed(self, model: str, reason: str, now: float) -> list[Action]:
        """The engine did not start; nothing of it is left."""
        resident = self.resident(model)
        refused: list[Action] = [Refuse(model, ticket, reason) for ticket in resident.waiting]
        resident.waiting.clear()
        self._leave(resident, "failed", reason)
        return refused + list(self._settle(now))

    def crashed(self, model: str, reason: str, now: float) -> list[Action]:
        """A ready engine ended unasked; it is started again, in its old room."""
        resident = self.resident(model)
        if resident.leaving or resident.state == "asleep":
            self._leave(resident, "unloaded", reason)
            return list(self._settle(now))
        resident.held = resident.need.footprint
        self._become(resident, "loading", reason)
        return [Load(model, again=True)]

    def fell_asleep(self, model: str, now: float) -> list[Action]:
        """The engine that ``Sleep`` named has left its GPU memory."""
        resident = self.resident(model)
        resident.held, resident.dozing = resident.need.asleep or NOTHING, False
        self._become(resident, "asleep")
        return list(self._settle(now))

    def lost(self, model: str, reason: str, now: float) -> list[Action]:
        """An engine that was to sleep or to wake did neither and is gone; one that is wanted is loaded."""
        resident = self.resident(model)
        if resident.dozing:
            return self.gone(model, now)
        resident.held = resident.need.footprint
        self._become(resident, "loading", reason)
        return [Load(model), *self._settle(now)]

    def gone(self, model: str, now: float) -> list[Action]:
        """The process that ``Unload`` named has ended."""
        self._leave(self.resident(model), "unloaded", "")
        return list(self._settle(now))

    def measured(self, model: str, used: Footprint, now: float) -> list[Action]:
        """What the model's process really uses now; more than was set aside may make idle models leave."""
        resident = self.resident(model)
        if resident.state == "ready":
            resident.held = resident.need.footprint.at_least(used)
        elif resident.state == "asleep" and resident.need.asleep:
            resident.held = resident.need.asleep.at_least(used)
        return list(self._settle(now))

    def unload(self, model: str, now: float) -> list[Action]:
        """An operator wants the model gone: it leaves as soon as nobody uses it."""
        resident = self.resident(model)
        if resident.state in ("loading", "ready", "asleep") or resident.dozing:
            resident.leaving = True
        elif resident.state == "failed":
            self._become(resident, "unloaded")
        return list(self._settle(now))

    def pin(self, model: str, pinned: bool, now: float) -> list[Action]:
        """A pinned model leaves only when an operator unloads it."""
        self.resident(model).pinned = pinned
        return list(self._settle(now))

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        return list(self._settle(now))

    def next_time(self, now: float) -> float | None:
        """When ``tick`` could change something; ``None`` while only events can."""
        times = []
        head = self._head()
        for resident in self.residents.values():
            stays = resident.pinned or resident.held == NOTHING or resident.state not in ("ready", "asleep")
            if head is not None and not stays:
                times.append(resident.ready_since + self._quantum)
            if (end := self._idle_end(resident)) is not None:
                times.append(end)
        later = [time for time in times if time > now]
        return min(later, default=None)

    # -- the rules ----------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> Iterator[Action]:
        """Everything that can be done now, in order: room for the first in line, grants, idle models out."""
        while (head := self._head()) is not None:
            if not self._could_fit(head):
                reason = self.arithmetic(head)
                refused = list(head.waiting)
                head.waiting.clear()
                yield from (Refuse(head.model, ticket, reason, too_large=True) for ticket in refused)
                continue
            if not self._entered(head).within(self.budget):
                break
            asleep, head.held = head.state == "asleep", head.entry
            self._become(head, "loading")
            yield Wake(head.model) if asleep else Load(head.model)
        closed = self._victims(head, now)
        self._calm = head is None and not closed
        for resident in self.residents.values():
            if resident.state not in ("ready", "asleep"):
                continue
            if resident.leaving or resident.model in closed:
                if not resident.in_flight:
                    yield self._send_away(resident, asleep=closed.get(resident.model, False))
                continue
            if resident.state == "ready":
                yield from self._grant(resident)
            if (end := self._idle_end(resident)) is not None and now >= end:
                yield self._send_away(resident)

    def _grant(self, resident: Resident) -> list[Action]:
        tickets = list(resident.waiting)
        resident.waiting.clear()
        resident.in_flight += len(tickets)
        return [Grant(resident.model, ticket) for ticket in tickets]

    def _head(self) -> Resident | None:
        """The first in line: the model out of its memory that was first asked for."""
        states = ("unloaded", "failed", "asleep")
        asked = (r for r in self.residents.values() if r.waiting and r.state in states and not r.leaving)
        return min(asked, key=lambda resident: next(iter(resident.waiting)), default=None)

    def _victims(self, head: Resident | None, now: float) -> dict[str, bool]:
        """The models that must leave for the first in line or for a budget that is passed, and whether to sleep: idle
        ones by last use, those asleep first for the host's memory and last for a GPU's, then busy ones whose turn is
        over, longest ready first. As few as free enough, and as many of them asleep as find room for that."""
        excess = self._entered(head) if head is not None else self.held
        for resident in self.residents.values():
            if resident.state == "draining" or (resident.state not in ("unloaded", "failed") and resident.leaving):
                excess -= resident.freed  # comes free without anyone's help
        chosen: list[Resident] = []
        held = [r for r in self.residents.values() if r.state in ("ready", "asleep") and r.held != NOTHING]
        movable = [r for r in held if not (r is head or r.leaving or r.pinned)]
        first = "asleep" if excess.host > self.budget.host else "ready"
        idle = sorted((r for r in movable if r.idle), key=lambda r: (r.state != first, r.last_used))
        busy = sorted((r for r in movable if not r.idle), key=lambda r: r.ready_since)
        if head is not None:
            idle += [resident for resident in busy if now >= resident.ready_since + self._quantum]
        for resident in idle:
            if excess.within(self.budget):
                break
            if excess.relieved_by(resident.held, self.budget):
                chosen.append(resident)
                excess -= resident.held
        sleeping = set()
        for resident in reversed(chosen):  # what was used last is wanted next
            asleep = resident.need.asleep
            if asleep is not None and resident.state == "ready" and (excess + asleep).within(self.budget):
                sleeping.add(resident.model)
                excess += asleep
        if head is not None and not (self._pinned(head) + head.entry).within(self.budget):
            chosen.append(head)  # it cannot wake beside pinned models, but be loaded
        return {resident.model: resident.model in sleeping for resident in chosen}

    def _entered(self, head: Resident) -> Footprint:
        """What is held once the first in line is on its way."""
        return self.held - head.held + head.entry

    def _could_fit(self, head: Resident) -> bool:
        """Whether it fits once everything that may leave has left."""
        return (self._pinned(head) + head.need.footprint).within(self.budget)

    def arithmetic(self, wanted: Resident) -> str:
        """Why a model cannot fit, in figures."""
        need = wanted.need
        if need.footprint.gpu and not self.budget.gpu:
            return f"{wanted.model} is to run on a GPU, and no GPU is seen here (nvidia-smi, engines.gpu_memory)."
        weights, cache, overhead = (spell_bytes(part) for part in (need.weights, need.kv_cache, need.overhead))
        parts = f"weights {weights}, KV cache {cache}, overhead {overhead}"
        text = f"{wanted.model} needs {need.footprint} ({parts}), and the budget is {self.budget}"
        pinned = self._pinned(wanted)
        if pinned != NOTHING:
            text += f", of which {pinned} belong to pinned models"
        return text + ". Raise engines.memory, or lower engines.context, engines.parallel or engines.kv_type."

    def _pinned(self, beside: Resident) -> Footprint:
        return _sum(r.held for r in self.residents.values() if r.pinned and r is not beside)

    def _idle_end(self, resident: Resident) -> float | None:
        """When a model leaves for having been idle; ``None`` when it does not."""
        keep = self._idle_seconds if resident.keep_seconds is None else resident.keep_seconds
        return resident.last_used + keep if keep and resident.idle and not resident.pinned else None

    def _send_away(self, resident: Resident, *, asleep: bool = False) -> Action:
        moving = resident.held.at_least(resident.need.asleep or NOTHING)
        resident.dozing = asleep and (self.held - resident.held + moving).within(self.budget)
        resident.held = moving if resident.dozing else resident.held
        self._become(resident, "draining")
        return Sleep(resident.model) if resident.dozing else Unload(resident.model)

    def _leave(self, resident: Resident, state: State, reason: str) -> None:
        resident.held, resident.leaving, resident.dozing = NOTHING, False, False
        self._become(resident, state, reason)

    def _become(self, resident: Resident, state: State, reason: str = "") -> None:
        resident.state, resident.reason = state, reason
        self._note(resident)


def _sum(footprints: Iterable[Footprint]) -> Footprint:
    total = NOTHING
    for footprint in footprints:
        total += footprint
    return total
