"""The desk where agents are begun, watched, approved, resumed and cancelled; the work is a task of this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pagoda.core.errors import Conflict, InvalidRequest, NotFound, PagodaError, ToolError
from pagoda.core.ports import Inference
from pagoda.core.storage.store import Store
from pagoda.core.types import Call
from pagoda.logic.agents.events import events_of
from pagoda.logic.agents.journal import AgentRun, Journal
from pagoda.logic.agents.plan import AgentPlan, key_of
from pagoda.logic.agents.work import Ending, Means, Work
from pagoda.logic.reviews.book import Item, Review, ReviewBook, Ruling
from pagoda.logic.tools.shelf import Toolshelf
from pagoda.logic.tools.tool import Occasion
from pagoda.service.limits.prices import FREE, PriceTable
from pagoda.service.telemetry import Telemetry

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_LOOKS_A_BEAT = 6


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator sets for all runs."""

    prices: PriceTable = PriceTable("", {})
    reviewers: int = 1
    """People who must allow a call in the review queue."""


@dataclass(slots=True)
class _AtWork:
    """A run that this process works on."""

    task: asyncio.Task[None]
    cancelled: bool = False


class Agents:
    """The agents of this home, as this process sees them."""

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        inference: Callable[[], Inference],
        tools: Toolshelf,
        telemetry: Telemetry,
        terms: Terms = Terms(),
    ) -> None:
        self._telemetry = telemetry
        self._journal = Journal(store)
        self._reviews = ReviewBook(store)
        self._inference = inference
        self._terms = terms
        self.tools = tools
        self._at_work: dict[str, _AtWork] = {}
        self._changes: dict[str, asyncio.Event] = {}
        self._watching: asyncio.Task[None] | None = None

    async def begin(self, plan: AgentPlan, call: Call) -> AgentRun:
        """A new run, at work. Raises ``NotFound`` for a tool that there is not."""
        if not plan.task.strip():
            raise InvalidRequest("There is no task.", param="task")
        chosen = self.tools.choose((*plan.tools, *plan.approve))
        if plan.limits.money is not None:
            asked = [plan.model, *(tool.agent_model for tool in chosen if tool.delegates)]
            if free := next((model for model in asked if self._terms.prices.of(model) == FREE), None):
                raise InvalidRequest(
                    f"limits.money bounds nothing: {free} has no price; name one in prices.models.", param="limits"
                )
        run = await self._journal.create(call.tenant, plan)
        await self._start(run, call)
        return run

    async def resume(self, run_id: str, call: Call, *, tenant: str | None) -> AgentRun:
        """Go on with a run. Raises ``Conflict`` when it has ended, is at work, or waits for an approval."""
        run = await self._journal.get(tenant, run_id)
        if run.status == "waiting" and await self.waits(run_id):
            raise Conflict(f"The agent run {run_id} waits for approval of a call; approve or refuse it.")
        await self._start(run, call)
        return await self._journal.get(tenant, run_id)

    async def decide(
        self, run_id: str, place: int | None, *, approve: bool, by: str, reason: str = "", tenant: str | None
    ) -> Sequence[int]:
        """Approve or refuse what waits in a run; the run goes on when it is resumed."""
        run = await self._journal.get(tenant, run_id)
        places = await self._journal.decide(run_id, place, approve=approve, by=by, reason=reason)
        self._note_change(run_id)
        ruling = Ruling(decision="approve") if approve else Ruling(decision="reject", reason=reason or "refused")
        for each in places:
            await self._reviews.settle(run.tenant, key_of(run_id, each), by, ruling)
        return places

    async def follow_review(self, review: Review, reviewer: str, *, tenant: str | None) -> str | None:
        """Do with a waiting call what people decided of it in the queue; gives the run, where the review is of one."""
        record = review.record
        about = record.reasons.get("approval")
        if about is None or record.state == "waiting":
            return None
        reasons = [each.reason for each in review.judgements if each.decision == "reject" and each.reason]
        decided: dict[str, Any] = {"approve": record.state == "approved", "by": reviewer, "reason": "; ".join(reasons)}
        with contextlib.suppress(Conflict):  # it was decided elsewhere, or the run is over
            await self.decide(about["run"], about["step"], tenant=tenant, **decided)
        return str(about["run"])

    async def waits(self, run_id: str) -> bool:
        """Whether a call of a run waits for approval."""
        return any(step.state == "waiting" for step in await self._journal.steps(run_id))

    async def cancel(self, run_id: str, *, tenant: str | None) -> AgentRun:
        """Stop a run, and the tool that it is calling."""
        await self._journal.get(tenant, run_id)
        await self._journal.cancel(run_id)
        if (mine := self._at_work.get(run_id)) is not None:
            mine.cancelled = True
            mine.task.cancel()
            await asyncio.wait((mine.task,))
        self._note_change(run_id)
        for each in await self._journal.below(run_id):
            with contextlib.suppress(Conflict):  # it has just ended
                await self.cancel(each, tenant=tenant)
        return await self._journal.get(tenant, run_id)

    async def delegate(self, plan: AgentPlan, occasion: Occasion) -> AgentRun:
        """A run that is a call of another one, worked on to its end. The same call finds the same run again.

        Raises ``ToolError`` where it ended without an answer.
        """
        parent, _, place = occasion.key.rpartition(":")
        run_id, tenant = f"{parent or 'agent'}.{place}", occasion.call.tenant
        try:
            run = await self._journal.get(tenant, run_id)
        except NotFound:
            run = await self._journal.create(tenant, plan, run_id, parent or None)
        if not run.ended:
            await self._start(run, occasion.call)
            task = self._at_work[run_id].task
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait((task,))
                raise
            run = await self._journal.get(tenant, run_id)
        if run.status != "done":
            raise ToolError(f"the run {run_id} is {run.status}{f': {run.error}' if run.error else ''}")
        return run

    async def get(self, run_id: str, *, tenant: str | None) -> AgentRun:
        """A run. Raises ``NotFound``."""
        return await self._journal.get(tenant, run_id)

    async def find(self, *, tenant: str | None, limit: int = 100) -> list[AgentRun]:
        """Runs, newest first."""
        return await self._journal.find(tenant, limit)

    async def events(self, run_id: str, *, tenant: str | None, follow: bool = True) -> AsyncIterator[dict[str, Any]]:
        """Everything that happened in a run, then what happens until it ends or waits; without a model.

        With ``follow`` false what has happened so far.
        """
        run = await self._journal.get(tenant, run_id)
        yield {"type": "run.begun", "run": run_id, "task": run.plan.task, "model": run.plan.model}
        told: dict[int, int] = {}
        change = self._changes.setdefault(run_id, asyncio.Event())
        while True:
            change.clear()
            run = await self._journal.get(tenant, run_id)
            for step in await self._journal.steps(run_id):
                events = events_of(step)
                for event in events[told.get(step.place, 0) :]:
                    yield event
                told[step.place] = max(len(events), told.get(step.place, 0))
            at_rest = run.ended or run.status in ("waiting", "interrupted")
            if (at_rest and run_id not in self._at_work) or not follow:
                if run_id not in self._at_work:
                    self._changes.pop(run_id, None)
                yield {"type": f"run.{run.status}", "run": run_id, "answer": run.answer, "limited": run.limited} | (
                    {"error": run.error} if run.error else {}
                )
                return
            try:
                async with asyncio.timeout(_LOOK_SECONDS):  # another process may be at work on it
                    await change.wait()
            except TimeoutError:
                continue

    async def wait(self, run_id: str, *, tenant: str | None) -> AgentRun:
        """The run when this process works on it no longer."""
        if (mine := self._at_work.get(run_id)) is not None:
            await asyncio.wait((mine.task,))
        return await self._journal.get(tenant, run_id)

    async def close(self) -> None:
        """Stop all work; it can be resumed."""
        tasks = [each.task for each in self._at_work.values()]
        for task in tasks:
            task.cancel()
        if self._watching is not None:
            self._watching.cancel()
            tasks.append(self._watching)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self, run: AgentRun, call: Call) -> None:
        await self._journal.take(run.id)
        self._changes.setdefault(run.id, asyncio.Event())
        task = asyncio.create_task(self._perform(run, call), name=f"agent-{run.id}")
        self._at_work[run.id] = _AtWork(task)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="agents-watch")

    async def _perform(self, run: AgentRun, call: Call) -> None:
        """Work, and write down how it ended, whatever happens."""
        status = "failed"
        try:
            ending = await self._work(run, call)
            status = ending.status
            await self._journal.leave(run.id, ending.status, answer=ending.answer, limited=ending.limited)
            if ending.status == "waiting":
                await self._queue(run)
        except asyncio.CancelledError:
            mine = self._at_work[run.id]
            status = "cancelled" if mine.cancelled else "interrupted"
            await asyncio.shield(self._leave(run.id, status))
        except PagodaError as error:
            status = "failed" if not error.retryable else "interrupted"
            await self._leave(run.id, status, error.message)
        except Exception:
            logger.exception("the agent run %s failed unexpectedly", run.id)
            await self._leave(run.id, "failed", "Pagoda failed unexpectedly; its log says more.")
        finally:
            self._telemetry.child(self._telemetry.agent_works, status).inc()
            del self._at_work[run.id]
            self._note_change(run.id)
            self._changes.pop(run.id, None)

    async def _work(self, run: AgentRun, call: Call) -> Ending:
        tools = self.tools.choose(run.plan.tools)
        changed = self._changes[run.id].set
        means = Means(self._inference(), self._journal, self._terms.prices)
        work = Work(run.id, run.plan, tools, means, call, changed)
        values = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.id": run.id,
            "gen_ai.request.model": run.plan.model,
        }
        with self._telemetry.traces.traced("invoke_agent", values):
            return await work.perform()

    async def _queue(self, run: AgentRun) -> None:
        """Put the calls that wait before people, beside the answers that wait for them."""
        waiting = [step for step in await self._journal.steps(run.id) if step.state == "waiting"]
        for step in waiting:
            about = {"tool": step.input["tool"], "arguments": step.input["arguments"]}
            item = Item(
                team=run.tenant,
                request_id=step.input["key"],
                reason="approval",
                detail={"run": run.id, "step": step.place, **about},
                held=True,
                needed=self._terms.reviewers,
                model=run.plan.model,
                prompt={"text": run.plan.task},
                answer=orjson.dumps(about, option=orjson.OPT_INDENT_2).decode(),
            )
            try:
                await self._reviews.enter(item)
            except PagodaError as error:  # the run itself says that it waits
                logger.warning("a call of %s is not in the review queue: %s", run.id, error.message)

    async def _leave(self, run_id: str, status: str, error: str | None = None) -> None:
        try:
            await self._journal.leave(run_id, status, error=error)
        except PagodaError as fault:  # another process has it, or the records are away: it is found as interrupted
            logger.warning("the agent run %s could not be left: %s", run_id, fault.message)

    async def _watch(self) -> None:
        """While there is work: show that it goes on, and stop what somebody wants stopped."""
        looks = 0
        while self._at_work:
            await asyncio.sleep(_LOOK_SECONDS)
            looks += 1
            try:
                for run_id in await self._journal.unwanted(list(self._at_work)):
                    if (mine := self._at_work.get(run_id)) is not None:
                        mine.cancelled = True
                        mine.task.cancel()
                if looks % _LOOKS_A_BEAT == 0:
                    await self._journal.beat(list(self._at_work))
            except PagodaError as error:
                logger.warning("the runs of agents cannot be watched: %s", error.message)

    def _note_change(self, run_id: str) -> None:
        if (change := self._changes.get(run_id)) is not None:
            change.set()
