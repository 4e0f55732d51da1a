"""The path of a call to an engine: reserve → cache → admission → router → engine → settle → record → metrics.

Of these, the engine and its metrics exist; the others follow as steps of ``ModelService`` between finding the model and
asking its engine. Nothing here knows what a request is for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Protocol, TypeVar

from pagoda.core.errors import InvalidRequest, ModelTimeout, PagodaError, Unavailable
from pagoda.core.types import (
    Call,
    Delta,
    Embed,
    Embeddings,
    Event,
    Generation,
    Score,
    Scores,
    Tokenize,
    Tokens,
    Usage,
)
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines.contract import Engine
from pagoda.model.engines.openai import UNREACHABLE
from pagoda.service.supervisor import HostState, Supervisor
from pagoda.service.telemetry import Telemetry

T = TypeVar("T")


class Models(Protocol):
    """The catalog as the service needs it."""

    def resolve(self, name: str) -> ModelEntry:
        """The entry of a name or alias. Raises ``NotFound``."""
        ...

    def entries(self) -> list[ModelEntry]:
        """All entries."""
        ...


class ModelService:
    """Gives every call the engine of its model and counts what happens."""

    def __init__(self, models: Models, supervisor: Supervisor, telemetry: Telemetry) -> None:
        self.models = models
        self.supervisor = supervisor
        self.telemetry = telemetry

    async def generate(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """Stream an answer from the model's engine until the call's deadline."""
        model = self.models.resolve(request.model)
        if model.task == "embedding":
            raise InvalidRequest(f"{model.id} is an embedding model; it cannot generate text.", param="model")
        began = time.perf_counter()
        with self._counted(model, "generate"), _deadline(call) as limit:
            try:
                async with asyncio.timeout_at(limit):
                    stream, event = await self._begin(model, request)
                async with aclosing(stream):  # type: ignore[type-var]
                    first = True
                    while event is not None:
                        if first and isinstance(event, Delta):
                            first = False
                            self.telemetry.first_token.labels(model.id).observe(time.perf_counter() - began)
                        if isinstance(event, Usage):
                            self._count_tokens(model, event.prompt_tokens, event.completion_tokens)
                        yield event
                        if limit is None:  # a deadline's timer for each token would cost more than the rest of this
                            event = await anext(stream, None)
                        else:
                            async with asyncio.timeout_at(limit):
                                event = await anext(stream, None)
            except TimeoutError as error:
                raise ModelTimeout(f"{model.id} did not finish before the request's deadline.") from error

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        """Vectors from the model's engine."""
        model = self.models.resolve(request.model)
        if model.task != "embedding":
            raise InvalidRequest(f"{model.id} is not an embedding model.", param="model")
        own = model.dimensions
        if request.dimensions is not None and own is not None and request.dimensions != own:
            raise InvalidRequest(f"{model.id} gives {own} dimensions; others are not supported.", param="dimensions")
        answer = await self._ask(model, "embed", call, lambda engine: engine.embed(request))
        self._count_tokens(model, answer.prompt_tokens, 0)
        return answer

    async def score(self, request: Score, call: Call) -> Scores:
        """Log-probabilities from the model's engine."""
        model = self.models.resolve(request.model)
        if model.task == "embedding":
            raise InvalidRequest(f"{model.id} is an embedding model; it cannot score text.", param="model")
        return await self._ask(model, "score", call, lambda engine: engine.score(request))

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        """Token ids from the model's engine."""
        model = self.models.resolve(request.model)
        return await self._ask(model, "tokenize", call, lambda engine: engine.tokenize(request))

    def states(self) -> dict[str, HostState]:
        """State of every model that was asked for; the metrics of engines follow it."""
        states = self.supervisor.states()
        for model_id, state in states.items():
            self.telemetry.engine_ready.labels(model_id).set(state.state == "ready")
            self.telemetry.engine_restarts.labels(model_id).set(state.restarts)
        return states

    async def _ask(self, model: ModelEntry, verb: str, call: Call, ask: Callable[[Engine], Awaitable[T]]) -> T:
        with self._counted(model, verb), _deadline(call) as limit:
            try:
                async with asyncio.timeout_at(limit):
                    engine = await self.supervisor.engine(model)
                    try:
                        return await ask(engine)
                    except Unavailable as error:
                        if error.code != UNREACHABLE:
                            raise
                    return await ask(await self.supervisor.replacement(engine))
            except TimeoutError as error:
                raise ModelTimeout(f"{model.id} did not finish before the request's deadline.") from error

    async def _begin(self, model: ModelEntry, request: Generation) -> tuple[AsyncIterator[Event], Event | None]:
        """A stream and its first event; an engine that ended unnoticed is replaced first."""
        engine = await self.supervisor.engine(model)
        _check_generation(request, engine)
        stream = engine.generate(request)
        try:
            return stream, await anext(stream, None)
        except Unavailable as error:
            if error.code != UNREACHABLE:
                raise
        stream = (await self.supervisor.replacement(engine)).generate(request)
        return stream, await anext(stream, None)

    def _count_tokens(self, model: ModelEntry, prompt: int, completion: int) -> None:
        self.telemetry.tokens.labels(model.id, "prompt").inc(prompt)
        self.telemetry.tokens.labels(model.id, "completion").inc(completion)

    @contextmanager
    def _counted(self, model: ModelEntry, verb: str) -> Iterator[None]:
        """Count a call by its outcome: ok, the error's code, or cancelled."""
        began, status = time.perf_counter(), "cancelled"
        active = self.telemetry.active.labels(model.id)
        active.inc()
        try:
            yield
            status = "ok"
        except PagodaError as error:
            status = error.code
            raise
        finally:
            active.dec()
            self.telemetry.requests.labels(model.id, verb, status).inc()
            self.telemetry.duration.labels(model.id, verb).observe(time.perf_counter() - began)


@contextmanager
def _deadline(call: Call) -> Iterator[float | None]:
    """The call's deadline (Unix time) as a time of the running loop's clock."""
    if call.deadline is None:
        yield None
    else:
        yield asyncio.get_running_loop().time() + call.deadline - time.time()


def _check_generation(request: Generation, engine: Engine) -> None:
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
