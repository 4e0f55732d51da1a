"""What routes need of the application, and the ``Call`` that each request becomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from pagoda.core.errors import InvalidRequest, PagodaError
from pagoda.core.ports import Inference
from pagoda.core.runs import Runs
from pagoda.core.settings import Settings
from pagoda.core.types import PRIORITIES, CacheWish, Call
from pagoda.interface.access import SECURITY_SCHEMES, Access, key_of, models_of, need_of, tenant_of
from pagoda.interface.learning import Learning
from pagoda.interface.sse import ClientGone
from pagoda.interface.turnstile import Gate
from pagoda.logic.prompts.composing import Composer
from pagoda.logic.prompts.index import PromptIndex
from pagoda.model.catalog.entry import ModelEntry
from pagoda.service.contents.recorder import Recorder
from pagoda.service.keys.ring import KeyRing
from pagoda.service.lifecycle import Order, Step
from pagoda.service.routing.steering import PoolOrder
from pagoda.service.telemetry import Telemetry

if TYPE_CHECKING:  # they bring the database, which not every service opens
    from pagoda.core.storage.store import Store
    from pagoda.logic.agents.desk import Agents
    from pagoda.logic.batches.ledger import Batches
    from pagoda.logic.batches.shelf import FileShelf
    from pagoda.logic.prompts.book import PromptBook
    from pagoda.logic.retrieval.answering import Answerer
    from pagoda.logic.retrieval.book import CollectionBook
    from pagoda.logic.retrieval.index import Searcher
    from pagoda.logic.retrieval.ingestion import Ingestion
    from pagoda.logic.trust.desk import TrustDesk
    from pagoda.service.keys.book import KeyBook

_LONGEST_TIMEOUT_SECONDS = 86_400.0
_LONGEST_UNIT = 500
_LEAST_URGENT = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """A catalog entry with what is known of its files and engine."""

    entry: ModelEntry
    state: str
    reason: str
    aliases: tuple[str, ...]
    engine: Mapping[str, Any] | None = None
    """What is known of its engine (``pagoda.service.supervisor.HostState`` as JSON)."""


class Desk(Protocol):
    """Agents and their tools, opened when somebody needs them."""

    async def agents(self) -> Agents:
        """The agents. Raises ``InvalidRequest`` for a tool that settings name wrongly."""
        ...


class Retrieval(Protocol):
    """Collections of documents."""

    book: CollectionBook
    searcher: Searcher
    ingestion: Ingestion

    async def answerer(self, prompts: PromptIndex, call: Call, model: str | None = None) -> Answerer:
        """Who answers questions from them."""
        ...


class Backstage(Protocol):
    """What the application hands to the interface."""

    settings: Settings
    inference: Inference
    telemetry: Telemetry
    runs: Runs
    keys: KeyRing
    contents: Recorder
    """Who takes down prompts and answers, where that is wanted."""
    write_line: Callable[[bytes], None] | None
    """Where lines of the log of requests go, if anywhere."""
    internal_key: str
    """Which the requests of Pagoda's own processes carry; empty where there is no engine to join."""
    gate: Gate
    """Who is inside, and whether the service is to end."""
    closing: asyncio.Event
    """Set when the service has begun to shut down: no new work is taken, and what only waits should end."""

    @property
    def learning(self) -> Learning:
        """What is learnt from answers that were given."""
        ...

    @property
    def files(self) -> FileShelf:
        """Uploaded files."""
        ...

    @property
    def batches(self) -> Batches:
        """Batches that were asked for over HTTP."""
        ...

    prompts: PromptIndex
    """Prompts by name and version or label, in memory."""

    @property
    def prompt_book(self) -> PromptBook:
        """Prompts as they are kept."""
        ...

    @property
    def composer(self) -> Composer:
        """What makes prompts ready for models."""
        ...

    @property
    def book(self) -> KeyBook:
        """The keys as they are kept."""
        ...

    @property
    def trust(self) -> TrustDesk:
        """How sure answers are, and what sources say to claims."""
        ...

    @property
    def desk(self) -> Desk:
        """Agents and their tools."""
        ...

    @property
    def retrieval(self) -> Retrieval:
        """Collections of documents, searched and asked."""
        ...

    async def records(self) -> Store:
        """The database of records. Raises ``StoreError``."""
        ...

    async def refresh_keys(self, changed: str | None = None) -> None:
        """Have keys renewed here, and in the process that owns the engines, after one (or an unknown one) changed."""
        ...

    def entry(self, name: str | None, task: str, among: Collection[str] | None = None) -> ModelEntry:
        """The model of that name, or the default of the task when there is none, of those that may be named.

        Raises ``NotFound``.
        """
        ...

    async def models(self) -> Sequence[ModelStatus]:
        """All models as they are now."""
        ...

    async def states(self) -> dict[str, Any]:
        """Engine states by model id, as JSON."""
        ...

    async def memory(self) -> dict[str, Any]:
        """The budget of model memory and what of it is set aside, as JSON."""
        ...

    def steer(self, order: Order) -> AsyncIterator[Step]:
        """Load or unload a model, step by step."""
        ...

    def watch_models(self) -> AsyncIterator[Step]:
        """Every change of a model's state. Raises ``Conflict`` in a process that owns no engines."""

    async def cache_state(self) -> dict[str, Any]:
        """What the response cache holds, as JSON."""
        ...

    async def purge_cache(self, tenant: str | None, model: str | None) -> dict[str, Any]:
        """Forget cached answers of a tenant, a model, both or all; what went, as JSON."""
        ...

    async def usage(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What was used (``pagoda.service.limits.report.Question``), as JSON."""

    async def pools(self) -> list[dict[str, Any]]:
        """All pools with their replicas, as JSON."""
        ...

    async def steer_pool(self, order: PoolOrder) -> dict[str, Any]:
        """Add, remove, drain or resume a replica; the replica as it is then, as JSON."""
        ...

    async def metrics(self) -> bytes:
        """The metrics of all processes of this home, in Prometheus's text format."""
        ...

    def lease(self, name: str = "") -> Callable[[], None]:
        """Note that another process has joined; the result is called when it leaves."""
        ...


async def backstage(request: Request) -> Backstage:
    """The application behind a request. A coroutine, since FastAPI sends plain functions to a thread."""
    found: Backstage = request.app.state.backstage
    return found


async def call_of(request: Request) -> Call:
    """Who asks and within which bounds. Raises ``InvalidRequest`` for headers that make no sense."""
    return call_by(request)


def call_by(request: Request, *, whole: bool = False) -> Call:
    """What ``call_of`` gives, where it is known already whether the answer is given whole."""
    headers = dict(reversed(request.scope["headers"]))  # each look at ``request.headers`` walks and decodes them all
    deadline = None
    if given := headers.get(b"x-request-timeout"):
        try:
            seconds = float(given)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise InvalidRequest("X-Request-Timeout must be a number of seconds above 0.", param="X-Request-Timeout")
        deadline = time.time() + seconds
    cache, max_age = cache_wish(_spelled(headers, b"cache-control") or "")
    key, priority = key_of(request), _priority_of(_spelled(headers, b"x-request-priority") or "normal")
    return Call(
        request_id=request.scope["state"]["request_id"],
        tenant=tenant_of(request),
        key_id=None if key is None else key.id,
        deadline=deadline,
        priority=priority if key is None else max(priority, key.priority),
        route=request.scope["route"].path,
        cache=cache,
        cache_max_age=max_age,
        whole=whole,
        unit=_unit_of(_spelled(headers, b"x-experiment-unit")),
    )


def _spelled(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _unit_of(unit: str | None) -> str | None:
    if unit is not None and not 1 <= len(unit) <= _LONGEST_UNIT:
        raise InvalidRequest(
            f"X-Experiment-Unit must have 1 to {_LONGEST_UNIT} characters; leave it out to use the user or the key.",
            param="X-Experiment-Unit",
        )
    return unit


def on_behalf_of(call: Call, user: str | None) -> Call:
    """The call, with whom the client says it asks for."""
    return replace(call, user=user) if user else call


def asked_model(stage: Backstage, request: Request, call: Call, name: str | None) -> ModelEntry:
    """The model that a call asks to generate, or its variant's where an experiment is attached to that name.

    Raises ``NotFound``.
    """
    among = models_of(request)
    asked = stage.entry(name, "chat", among)
    variant = stage.learning.roster.model_of(call, name or asked.id, among)
    return asked if variant is None else stage.entry(variant, "chat", among)


def _priority_of(given: str) -> int:
    if given in PRIORITIES:
        return PRIORITIES[given]
    if given.isascii() and given.isdigit() and int(given) <= _LEAST_URGENT:
        return int(given)
    raise InvalidRequest(
        f"X-Request-Priority must be one of {', '.join(PRIORITIES)}, or a number from 0 (first) to {_LEAST_URGENT}.",
        param="X-Request-Priority",
    )


def cache_wish(header: str) -> tuple[CacheWish, float | None]:
    """What a ``Cache-Control`` header asks of the response cache, and the oldest answer that will do (seconds).

    ``no-store`` wins over all; directives that are not ours are left alone, as HTTP has it. ``pagoda-cache`` is our
    own: answers drawn at random may be cached too. Raises ``InvalidRequest`` for an age that is no number.
    """
    if not header:
        return "default", None
    said: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = part.partition("=")
        said[name.strip().lower()] = value.strip().strip('"')
    max_age = None
    if "max-age" in said:
        if not said["max-age"].isascii() or not said["max-age"].isdigit():
            raise InvalidRequest("max-age in Cache-Control must be a whole number of seconds.", param="Cache-Control")
        max_age = float(said["max-age"][:10])
    if "no-store" in said:
        return "bypass", None
    if "only-if-cached" in said:
        if "no-cache" in said:
            raise InvalidRequest("no-cache and only-if-cached exclude each other; send one.", param="Cache-Control")
        return "only", max_age
    if "no-cache" in said:
        return "refresh", None
    return ("use" if "pagoda-cache" in said else "default"), max_age


class _Request(Request):
    """JSON by orjson, which refuses NaN and lone surrogates that nothing below could carry."""

    async def json(self) -> Any:
        """The parsed body."""
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json


class Route(APIRoute):
    """A route that says who may call it, whose requests are parsed by orjson, and whose client may leave."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._need = need_of(endpoint)
        if self._need is None:
            raise RuntimeError(f"{path} does not say who may call it; put @needs(...) or @public on its function")
        if self._need != "public":
            told: dict[str, Any] = {"security": [{name: []} for name in SECURITY_SCHEMES]}
            options["openapi_extra"] = (options.get("openapi_extra") or {}) | told
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for custom requests."""
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()
        need = need_of(self.endpoint) or "admin"

        async def handle(request: Request) -> Response:
            app = request.app.state
            access: Access = app.access
            await access.admit(request, need, app.backstage.internal_key)
            try:
                response = await handler(_Request(request.scope, request.receive))
            except ClientGone:
                return Response(status_code=499)
            except PagodaError as error:
                if need == "operate":
                    access.record(request, need, error.code)
                raise
            if need == "operate":  # what is done with keys is told by the book itself, in one transaction with it
                access.record(request, need, "done" if response.status_code < 400 else str(response.status_code))
            return response

        return handle


def json_response(value: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(value), media_type="application/json", headers=headers)
