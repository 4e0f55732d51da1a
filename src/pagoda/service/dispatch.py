"""The path of a call to an engine: reserve → cache → admission → router → engine → settle → record → metrics.

Of these all but the router exist; it follows as a step of ``ModelService`` between finding the model and asking its
engine. A deadline is held here, around the cache; what the cache calls to ask the engine
(``_produced``) works for all who wait for it and is ended by the cache. Nothing here knows what a request is for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Protocol, TypeVar, cast

from pagoda.core.errors import InvalidRequest, ModelTimeout, Overloaded, PagodaError, Unavailable
from pagoda.core.settings import Admission as AdmissionSettings
from pagoda.core.types import (
    Call,
    Detokenize,
    Embed,
    Embeddings,
    Event,
    Generation,
    Score,
    Scores,
    Started,
    Text,
    Tokenize,
    Tokens,
    Usage,
)
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import Engine, Footprint, fitted
from pagoda.model.engines.openai import UNREACHABLE
from pagoda.service.admission import Admission
from pagoda.service.cache.responses import ResponseCache
from pagoda.service.keys.ring import KeyRing
from pagoda.service.limits.charge import Charge
from pagoda.service.limits.limiter import Limiter
from pagoda.service.pace import Pace, count_tokens, note_usage
from pagoda.service.routing.pool import ReplicaPool
from pagoda.service.routing.router import Router, first_text_first
from pagoda.service.supervisor import HostState, Supervisor
from pagoda.service.telemetry import Telemetry
from pagoda.service.traces import NO_CALL, ModelSpan
from pagoda.service.vitals import look

T = TypeVar("T")


class Models(Protocol):
    """The catalog as the service needs it."""

    def resolve(self, name: str, among: Collection[str] | None = None) -> ModelEntry:
        """The entry of a name or alias, of those ids that may be named. Raises ``NotFound``."""
        ...

    def entries(self) -> list[ModelEntry]:
        """All entries."""
        ...


class ModelService:
    """Gives every call the engine of its model and counts what happens."""

    def __init__(
        self,
        models: Models,
        supervisor: Supervisor,
        telemetry: Telemetry,
        cache: ResponseCache,
        admission: AdmissionSettings,
        access: tuple[KeyRing, Limiter],
        router: Router,
    ) -> None:
        self.models = models
        self.supervisor = supervisor
        self.telemetry = telemetry
        self.cache = cache
        self.keys, self.limits = access
        self.router = router
        self.admission = Admission(admission, self._capacity, telemetry)

    async def generate(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """Stream an answer from the model's engine until the call's deadline."""
        model = await self._named(request.model, call)
        if model.task == "embedding":
            raise InvalidRequest(f"{model.id} is an embedding model; it cannot generate text.", param="model")
        if request.model != model.id:
            request = replace(request, model=model.id)
        limit, telemetry = _limit_of(call), self.telemetry
        span = telemetry.traces.model_call("text_completion" if request.messages is None else "chat", request, call)
        with _Counted(telemetry, model.id, "generate", span):
            charge, request = await self.limits.generation(model, request, call, self._context(model))
            with charge:
                produce = partial(self._produced, model, request, call, charge)
                stream = cast("AsyncIterator[Event]", self.cache.stream(model, request, call, produce))
                async with aclosing(stream) as events:  # type: ignore[type-var]
                    pace = Pace(telemetry, model.id)
                    # A deadline's timer for each token would cost more than the rest of this.
                    following = partial(anext, events, None) if limit is None else partial(_next, events, limit, model)
                    while (event := await following()) is not None:
                        charge.note(event)
                        pace.note(event)
                        span.take(event)
                        yield event
                    pace.end()

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        """Vectors from the model's engine."""
        model = await self._named(request.model, call)
        if model.task != "embedding":
            raise InvalidRequest(f"{model.id} is not an embedding model.", param="model")
        own = model.dimensions
        if request.dimensions is not None and own is not None and request.dimensions != own:
            raise InvalidRequest(f"{model.id} gives {own} dimensions; others are not supported.", param="dimensions")

        span = self.telemetry.traces.model_call("embeddings", request, call)
        with _Counted(self.telemetry, model.id, "embed", span):
            charge = await self.limits.embedding(model, request, call)

            async def produced(shared: bool) -> AsyncIterator[Embeddings]:
                def ask(engine: Engine) -> Awaitable[Embeddings]:
                    charge.begin()
                    return engine.embed(request)

                yield await self._asked(model, call, ask, shared=shared)

            try:
                with charge:
                    stream = self.cache.stream(model, request, call, produced)
                    async with asyncio.timeout_at(_limit_of(call)), aclosing(stream):  # type: ignore[type-var]
                        answer = cast("Embeddings", await anext(stream))
                    charge.note_whole(answer)
                    span.note_usage(answer.prompt_tokens)
            except TimeoutError as error:
                raise ModelTimeout(f"{model.id} did not finish before the request's deadline.") from error
        if answer.cache != "hit":
            count_tokens(self.telemetry, model.id, Usage(answer.prompt_tokens))
        note_usage(model.id, answer.prompt_tokens, answer.cache)
        return answer

    async def score(self, request: Score, call: Call) -> Scores:
        """Log-probabilities from the model's engine."""
        model = await self._named(request.model, call)
        if model.task == "embedding":
            raise InvalidRequest(f"{model.id} is an embedding model; it cannot score text.", param="model")
        named = replace(request, model=model.id)

        async def ask(engine: Engine, charge: Charge) -> Scores:
            charge.begin()
            scores = await engine.score(named)
            charge.note_whole(scores)
            return scores

        return await self._ask(model, "score", call, ask, partial(self.limits.score, model, named, call))

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        """Token ids from the model's engine."""
        model = await self._named(request.model, call)
        charged = partial(self.limits.question, model, call)
        return await self._ask(model, "tokenize", call, lambda engine, _: engine.tokenize(request), charged)

    def _context(self, model: ModelEntry) -> int | None:
        """The most tokens that the model's context can hold, where that is known before it runs."""
        if model.engine != "remote" and (chosen := self.supervisor.room().context):
            return chosen
        return model.context

    async def _named(self, name: str, call: Call) -> ModelEntry:
        """The model that a call names, if its key may ask it. Raises ``NotFound``, ``Forbidden`` for an ended key."""
        if call.key_id is None:
            return self.models.resolve(name)
        key = self.keys.get(call.key_id) or await self.keys.find(call.key_id)
        return self.models.resolve(name, key.models)

    def _capacity(self, model: ModelEntry) -> int:
        if (pool := self.router.of(model)) is not None:
            return pool.capacity()
        kind = engine_kind(model.engine)
        return kind.capacity(model, fitted(self.supervisor.room(), kind))

    async def detokenize(self, request: Detokenize, call: Call) -> Text:
        """Text of token ids from the model's engine."""
        model = await self._named(request.model, call)
        charged = partial(self.limits.question, model, call)
        return await self._ask(model, "detokenize", call, lambda engine, _: engine.detokenize(request), charged)

    async def look(self) -> None:
        """Set the gauges of what running engines tell of themselves."""
        found = {model_id: self.supervisor.engine_of(model_id) for model_id in self.supervisor.states()}
        await look({model_id: engine for model_id, engine in found.items() if engine is not None}, self.telemetry)

    def states(self) -> dict[str, HostState]:
        """State of every model that was asked for; the gauges follow it."""
        self.admission.report()
        self.router.report()
        states = self.supervisor.states()
        for model_id, state in states.items():
            self.telemetry.engine_ready.labels(model_id).set(state.state == "ready")
            self.telemetry.engine_restarts.labels(model_id).set(state.restarts)
            self.telemetry.model_loads.labels(model_id).set(state.loads)
            need = state.need.footprint if state.need is not None else Footprint()
            for kind, bytes_ in (("needed", need), ("held", state.held), ("used", state.used)):
                self.telemetry.model_memory.labels(model_id, "host", kind).set(bytes_.host)
                self.telemetry.model_memory.labels(model_id, "gpu", kind).set(bytes_.gpu)
            if need.host + need.gpu:  # it is on this machine
                self.telemetry.nlp_model_memory.labels(model_id).set(state.used.host + state.used.gpu)
        self.telemetry.memory_budget.labels("host").set(self.supervisor.budget.host)
        self.telemetry.memory_budget.labels("gpu").set(self.supervisor.budget.gpu)
        return states

    async def _ask(
        self,
        model: ModelEntry,
        verb: str,
        call: Call,
        ask: Callable[[Engine, Charge], Awaitable[T]],
        charged: Callable[[], Awaitable[Charge]],
    ) -> T:
        with _Counted(self.telemetry, model.id, verb), await charged() as charge:
            try:
                async with asyncio.timeout_at(_limit_of(call)):
                    return await self._asked(model, call, lambda engine: ask(engine, charge), shared=False)
            except TimeoutError as error:
                raise ModelTimeout(f"{model.id} did not finish before the request's deadline.") from error

    async def _asked(self, model: ModelEntry, call: Call, ask: Callable[[Engine], Awaitable[T]], *, shared: bool) -> T:
        """The engine's answer, after a turn; an engine that ended unnoticed is replaced."""
        if (pool := self.router.of(model)) is not None:
            async with self.admission.gate(model).admitted(call, shared=shared) as begin:
                begin()
                return await self.router.ask(pool, ask)
        line, load = self.router.home_of(model)
        async with self.admission.gate(line).admitted(call, shared=shared) as begin:
            with load:
                async with self.supervisor.lease(model) as lease:
                    begin()
                    try:
                        return await ask(lease.engine)
                    except Unavailable as error:
                        if error.code != UNREACHABLE:
                            raise
                    return await ask(await lease.replace())

    def _produced(
        self, model: ModelEntry, request: Generation, call: Call, charge: Charge, shared: bool
    ) -> AsyncIterator[Event]:
        """The engine's or the pool's events, after a turn and without a deadline."""
        if (pool := self.router.of(model)) is not None:
            return self._routed(pool, request, call, charge, shared)
        return self._computed(model, request, call, charge, shared)

    async def _computed(
        self, model: ModelEntry, request: Generation, call: Call, charge: Charge, shared: bool
    ) -> AsyncIterator[Event]:
        """The engine's events; an engine that ended unnoticed is replaced."""
        line, load = self.router.home_of(model)
        async with self.admission.gate(line).admitted(call, request.n, shared=shared) as begin:
            with load:
                async with self.supervisor.lease(model) as lease:
                    begin()
                    check_generation(request, lease.engine)
                    charge.begin()
                    stream = lease.engine.generate(request)
                    try:
                        event = await anext(stream, None)
                    except Unavailable as error:
                        if error.code != UNREACHABLE:
                            raise
                        stream = (await lease.replace()).generate(request)
                        event = await anext(stream, None)
                    async with aclosing(stream):  # type: ignore[type-var]
                        while event is not None:
                            yield event
                            event = await anext(stream, None)

    async def _routed(
        self, pool: ReplicaPool, request: Generation, call: Call, charge: Charge, shared: bool
    ) -> AsyncIterator[Event]:
        """A pool's events; before any was told, those of a model that stands in."""
        chain = [self.models.resolve(name) for name in pool.settings.fallbacks]
        try:
            gate = self.admission.gate(pool.entry)
            async with gate.admitted(call, request.n, shared=shared) as begin:
                begin()
                charge.begin()
                stream = self.router.generate(pool, request)
                events = first_text_first(stream) if chain else stream
                async with aclosing(events):  # type: ignore[type-var]
                    async for event in events:
                        chain = [] if isinstance(event, Started) else chain
                        yield event
            return
        except (Unavailable, Overloaded, ModelTimeout):
            if not chain:
                raise
        for place, stand_in in enumerate(chain):
            self.telemetry.fallbacks.labels(pool.name, stand_in.id).inc()
            told = False
            try:
                wanted = replace(request, model=stand_in.id)
                events = first_text_first(self._produced(stand_in, wanted, call, charge, shared))
                async with aclosing(events):  # type: ignore[type-var]
                    async for event in events:
                        told = True
                        yield event
                return
            except (Unavailable, Overloaded, ModelTimeout):
                if told or place == len(chain) - 1:
                    raise


class _Counted:
    """A block that counts a call by its outcome: ok, the error's code, or cancelled."""

    def __init__(self, telemetry: Telemetry, model: str, verb: str, span: ModelSpan = NO_CALL) -> None:
        self._telemetry = telemetry
        self._span = span
        self._labels = (model, verb)
        self._began = time.perf_counter()

    def __enter__(self) -> None:
        self._telemetry.active.count(self._labels[0]).inc()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        telemetry, status = self._telemetry, "ok" if error is None else "cancelled"
        if isinstance(error, PagodaError):
            status = error.code
        telemetry.active.count(self._labels[0]).inc(-1)
        telemetry.requests.count(*self._labels, status).inc()
        telemetry.duration.tally(*self._labels).observe(time.perf_counter() - self._began)
        self._span.end(status)


def _limit_of(call: Call) -> float | None:
    """The call's deadline (Unix time) as a time of the running loop's clock."""
    return None if call.deadline is None else asyncio.get_running_loop().time() + call.deadline - time.time()


async def _next(events: AsyncIterator[Event], limit: float, model: ModelEntry) -> Event | None:
    """The next event, if it comes before a time of the loop's clock; ``None`` at the end. Raises ``ModelTimeout``."""
    try:
        async with asyncio.timeout_at(limit):
            return await anext(events, None)
    except TimeoutError as error:
        raise ModelTimeout(f"{model.id} did not finish before the request's deadline.") from error


def check_generation(request: Generation, engine: Engine) -> None:
    """Refuse by name what the engine cannot do."""
    profile = engine.profile
    if request.n > profile.choices:
        raise InvalidRequest(f"{engine.model.id} gives at most {profile.choices} choices at once.", param="n")
    if request.top_logprobs is not None and request.top_logprobs > profile.top_logprobs:
        raise InvalidRequest(
            f"{engine.model.id} gives at most {profile.top_logprobs} top_logprobs.", param="top_logprobs"
        )
    if request.output is not None and not profile.json_schema:
        raise InvalidRequest(f"{engine.model.id} cannot constrain its answers.", param="response_format")
    if request.continue_final and not profile.continue_final:
        raise InvalidRequest(f"{engine.model.id} cannot continue a message.", param="continue_final_message")
    if request.sampling.logit_bias and not profile.logit_bias:
        raise InvalidRequest(f"{engine.model.id} takes no logit_bias.", param="logit_bias")
    if request.toolset is not None and request.toolset.mode != "none" and not profile.tool_calls:
        raise InvalidRequest(
            f"The engine of {engine.model.id} takes no tools; its entry must not say so.", param="tools"
        )
