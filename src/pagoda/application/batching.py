"""Batches at work: what a run of the kind ``batch`` does, and what every line of it becomes at the door.

A line is checked by the schema of its HTTP route and answered by the same function, so that a batch and a request
cannot differ.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pagoda.application.client import home_door
from pagoda.application.prompting import open_prompts
from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.runs.files import write_json
from pagoda.core.runs.record import now
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Json
from pagoda.interface.answered import Answered
from pagoda.interface.problems import body_of, explain, status_of
from pagoda.interface.prompted import with_prompt
from pagoda.interface.routes.chat import answer_chat
from pagoda.interface.routes.completions import answer_completion
from pagoda.interface.routes.embeddings import answer_embedding
from pagoda.interface.routes.responses import answer_response
from pagoda.interface.schemas.chat import ChatRequest
from pagoda.interface.schemas.completion import CompletionRequest
from pagoda.interface.schemas.embedding import EmbeddingRequest
from pagoda.interface.schemas.responses import ResponsesRequest
from pagoda.logic.batches.answers import AnswerFiles
from pagoda.logic.batches.ledger import STATE
from pagoda.logic.batches.lines import Demand, Line, check_lines, read_lines
from pagoda.logic.batches.work import Pace, Work
from pagoda.logic.prompts.composing import Composer
from pagoda.logic.prompts.resolving import PromptSource
from pagoda.model.catalog.catalog import Catalog
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import fitted
from pagoda.service.hardware import room_of

_MOST_SHOWN = 5

_FORMS: dict[str, tuple[type[BaseModel], Callable[..., Awaitable[Answered]]]] = {
    "/v1/chat/completions": (ChatRequest, answer_chat),
    "/v1/completions": (CompletionRequest, answer_completion),
    "/v1/embeddings": (EmbeddingRequest, answer_embedding),
    "/v1/responses": (ResponsesRequest, answer_response),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run's config."""

    input: str
    output: str
    errors: str
    endpoint: str | None = None
    model: str | None = None
    """Answers every line, whatever model it names."""
    expires_at: float | None = None
    concurrency: int = 0
    digest: str = ""
    tenant: str = "local"
    key_id: str | None = None
    """Whose key makes the requests: its limits hold, and they end when it is revoked."""


class _State:
    """How far the batch has come, in the run's directory, for those who asked for it over HTTP."""

    def __init__(self, context: RunContext) -> None:
        self._path = context.artifacts / STATE
        self._document: dict[str, Json] = {}

    def enter(self, status: str, answers: AnswerFiles | None = None, **facts: Json) -> None:
        """Note a new status and when it began."""
        self._document |= {"status": status, f"{status}_at": int(now().timestamp()), **facts}
        if answers is not None:
            self.count(answers, write=False)
        write_json(self._path, self._document)

    def count(self, answers: AnswerFiles, *, write: bool = True) -> None:
        """Note how many lines are answered."""
        self._document |= {"completed": answers.completed, "failed": answers.failed, "usage": dict(answers.usage)}
        if write:
            write_json(self._path, self._document, durable=False)


async def run_batch(context: RunContext) -> Mapping[str, Json]:
    """Answer the lines of a file that are not answered yet."""
    plan = Plan(**dict(context.config))
    state, path = _State(context), Path(plan.input)
    demand = Demand(plan.endpoint, needs_model=plan.model is None)
    state.enter("validating")
    total, mistakes = await asyncio.to_thread(check_lines, path, demand)
    if mistakes:
        state.enter("failed", errors=[asdict(mistake) for mistake in mistakes])
        shown = "; ".join(f"line {m.line}: {m.message}" if m.line else m.message for m in mistakes[:_MOST_SHOWN])
        more = f" (and {len(mistakes) - _MOST_SHOWN} more)" if len(mistakes) > _MOST_SHOWN else ""
        raise InvalidRequest(f"The input is wrong, nothing was answered: {shown.rstrip('.')}{more}.")
    with AnswerFiles(Path(plan.output), Path(plan.errors)) as answers:
        state.enter("in_progress", answers, total=total)
        try:
            in_time = await _answer_all(context, plan, demand, answers, (state, total))
        finally:
            state.count(answers)  # also of what was answered while it was being stopped
        state.enter("completed" if in_time else "expired", answers)
        return {"completed": answers.completed, "failed": answers.failed, "output": plan.output, **answers.usage}


async def _answer_all(
    context: RunContext, plan: Plan, demand: Demand, answers: AnswerFiles, told: tuple[_State, int]
) -> bool:
    state, total = told
    path = Path(plan.input)
    seen = -1

    def tick() -> None:
        nonlocal seen
        done = len(answers.done)
        context.progress("answering", done, total)
        if done != seen:
            seen = done
            state.count(answers)

    tick()
    parallel = parallel_of(context.settings, plan.model or context.settings.defaults.chat)
    pace = Pace(plan.concurrency, plan.concurrency) if plan.concurrency else Pace(parallel + 1, parallel * 4)
    async with home_door(context.settings, os.environ) as door, open_prompts(context.settings) as prompts:
        call = Call(tenant=plan.tenant, key_id=plan.key_id)
        ask = _asker(context, plan, door, prompts.index)
        work = Work(ask, lambda error: (status_of(error), body_of(error)), answers, pace, tick, call)
        in_time = await work.perform(read_lines(path, demand), plan.expires_at)
        state.enter("finalizing", answers)
        if not in_time:
            work.expire(read_lines(path, demand))
        tick()
        return in_time


def parallel_of(settings: Settings, name: str) -> int:
    """Requests that the engines of a model or pool of that name compute at once."""
    room, catalog = room_of(settings.engines), open_shelf(settings).catalog

    def capacity(name: str) -> int:
        entry = catalog.refer(name)
        kind = engine_kind(entry.engine)
        return kind.capacity(entry, fitted(room, kind))

    pool = settings.pools.get(name)
    if pool is None:
        return capacity(name)
    here = sum(capacity(replica.model) * replica.copies for replica in pool.replicas if not replica.url)
    return here or engine_kind("remote").parallel


def _asker(
    context: RunContext, plan: Plan, door: Inference, prompts: PromptSource
) -> Callable[[Line, Call], Awaitable[Mapping[str, Any]]]:
    catalog = open_shelf(context.settings).catalog
    composer = Composer(door, context.settings.defaults.embedding)

    async def ask(line: Line, call: Call) -> Mapping[str, Any]:
        schema, answer = _FORMS[line.endpoint]
        given = {**line.body} if plan.model is None else {**line.body, "model": plan.model}
        try:
            body: Any = schema.model_validate(given)
        except ValidationError as error:
            message, code, param = explain(error.errors())
            raise InvalidRequest(message, code=code, param=param) from error
        if getattr(body, "stream", None):
            raise InvalidRequest("A line of a batch cannot stream; leave stream out.", param="stream")
        if isinstance(body, ChatRequest) and body.trust:
            raise InvalidRequest(
                "A line of a batch is not told how sure its answer is; leave trust out, and send the answer to "
                "/api/v1/trust/score.",
                param="trust",
            )
        if isinstance(body, ChatRequest) and body.prompt is not None:
            find = lambda name: _id_of(catalog, name or context.settings.defaults.chat)  # noqa: E731
            body, call = await with_prompt(body, body.prompt, call, prompts, (composer, find))
        return (await answer(body, _id_of(catalog, body.model), door, call)).body

    return ask


def _id_of(catalog: Catalog, name: str) -> str:
    """The id of a model; for an unknown name the name, since the door knows which models the key may hear of."""
    try:
        return catalog.resolve(name).id
    except NotFound:
        return name
