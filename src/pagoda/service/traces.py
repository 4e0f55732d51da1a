"""Traces for OpenTelemetry, an option: one span a request, a model call, an agent, a tool; without an address none.

Names follow OpenTelemetry's semantic conventions for generative AI (``gen_ai.*``) and HTTP. Prompts, answers, arguments
and results are never in a span. Spans leave in batches by a thread of the SDK; a collector that is slow or gone loses
them and costs no request anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeAlias

import pagoda
from pagoda.core.errors import InvalidRequest, PagodaError
from pagoda.core.types import Call, Embed, Event, Finish, Generation, Started, Usage

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor

Value: TypeAlias = str | bool | int | float | list[str]
Kind: TypeAlias = Literal["server", "client", "internal"]

TRACEPARENT = "traceparent"
_PARENT: ContextVar[Context | None] = ContextVar("pagoda_trace", default=None)
_FAREWELL_MILLISECONDS = 2000
_EXPORT_SECONDS = 5.0
_WATCHERS = frozenset(("/health", "/ready", "/metrics"))


class Span:
    """A piece of work that is traced, or of which nothing is kept: then every call here does nothing."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span | None = None) -> None:
        self._span = span

    def __bool__(self) -> bool:
        return self._span is not None

    def name(self, name: str) -> None:
        """Call it otherwise, now that more is known."""
        if self._span is not None:
            self._span.update_name(name)

    def note(self, values: Mapping[str, Value | None]) -> None:
        """Add what is known, by its conventional names."""
        if self._span is not None:
            self._span.set_attributes({name: value for name, value in values.items() if value is not None})

    def end(self, failure: str | None = None) -> None:
        """It is over; ``failure`` says what went wrong, in a word."""
        if self._span is None:
            return
        if failure is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415

            self._span.set_attribute("error.type", failure)
            self._span.set_status(StatusCode.ERROR, failure)
        self._span.end()


NOTHING = Span()


class ModelSpan:
    """The span of a model call, which learns from the events of its answer."""

    __slots__ = ("_finishes", "_span", "_traced")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._traced = bool(span)
        self._finishes: list[str] = []

    def take(self, event: Event) -> None:
        """An event of the answer passes."""
        if not self._traced:
            return
        match event:
            case Started():
                self._span.note(
                    {
                        "gen_ai.response.model": event.model,
                        "gen_ai.provider.name": event.engine,
                        "pagoda.cache": event.cache,
                    }
                )
            case Finish():
                self._finishes.append(event.reason)
            case Usage():
                self.note_usage(event.prompt_tokens, event.completion_tokens, event.cached_tokens)

    def note_usage(self, prompt: int, completion: int | None = None, cached: int | None = None) -> None:
        """What the call used, tokens."""
        self._span.note(
            {
                "gen_ai.usage.input_tokens": prompt,
                "gen_ai.usage.output_tokens": completion,
                "gen_ai.usage.cache_read.input_tokens": cached,
            }
        )

    def end(self, outcome: str) -> None:
        """The call is over: ``ok``, ``cancelled`` or an error's code."""
        if self._traced:
            self._span.note({"gen_ai.response.finish_reasons": self._finishes or None})
            self._span.end(None if outcome == "ok" else outcome)


class Traces:
    """The spans of one process. Without a tracer nothing is traced."""

    def __init__(self, tracer: trace.Tracer | None = None, processor: SpanProcessor | None = None) -> None:
        self._tracer = tracer
        self._processor = processor

    def close(self) -> None:
        """Send what is left, for two seconds at most."""
        if self._processor is not None:
            self._processor.force_flush(_FAREWELL_MILLISECONDS)
            self._processor.shutdown()

    def begin(self, name: str, kind: Kind = "internal", values: Mapping[str, Value | None] | None = None) -> Span:
        """A span below the present one; whoever begins it ends it."""
        if self._tracer is None:
            return NOTHING
        return self._begin(self._tracer, name, kind, _PARENT.get(), values)

    @contextmanager
    def traced(
        self, name: str, values: Mapping[str, Value | None] | None = None, kind: Kind = "internal"
    ) -> Iterator[Span]:
        """A block that is a span, and the parent of those begun within it. Not across the yields of a generator."""
        if self._tracer is None:
            yield NOTHING
            return
        span = self._begin(self._tracer, name, kind, _PARENT.get(), values)
        with _under(span):
            yield span

    def request(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span]:
        """The block of an HTTP request, below its client's span where it names one (``traceparent``, W3C)."""
        if self._tracer is None or path in _WATCHERS:
            return _UNTRACED
        return self._request(self._tracer, method, headers)

    @contextmanager
    def _request(self, tracer: trace.Tracer, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        given = next((value.decode("latin-1") for name, value in headers if name == TRACEPARENT.encode()), "")
        above = TraceContextTextMapPropagator().extract({TRACEPARENT: given})
        span = self._begin(tracer, method, "server", above, {"http.request.method": method})
        with _under(span):
            yield span

    def model_call(self, operation: str, request: Generation | Embed, call: Call) -> ModelSpan:
        """The span of a model call, named as the conventions have it: the operation and the model."""
        if self._tracer is None:
            return NO_CALL
        values: dict[str, Value | None] = {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": request.model,
            "pagoda.request_id": call.request_id,
            "pagoda.purpose": call.purpose,
            "pagoda.key_id": call.key_id,
        }
        if isinstance(request, Generation):
            drawn = request.sampling
            values |= {
                "gen_ai.request.max_tokens": request.max_tokens,
                "gen_ai.request.temperature": drawn.temperature,
                "gen_ai.request.top_p": drawn.top_p,
                "gen_ai.request.top_k": drawn.top_k,
                "gen_ai.request.seed": drawn.seed,
                "gen_ai.request.frequency_penalty": drawn.frequency_penalty,
                "gen_ai.request.presence_penalty": drawn.presence_penalty,
                "gen_ai.request.choice.count": request.n if request.n > 1 else None,
                "gen_ai.request.stop_sequences": list(request.stop) or None,
                "gen_ai.output.type": "text" if request.output is None else "json",
            }
        return ModelSpan(self.begin(f"{operation} {request.model}", "client", values))

    def _begin(
        self,
        tracer: trace.Tracer,
        name: str,
        kind: Kind,
        above: Context | None,
        values: Mapping[str, Value | None] | None,
    ) -> Span:
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        given = {key: value for key, value in (values or {}).items() if value is not None}
        above = Context() if above is None else above  # never what the SDK's own context says
        return Span(tracer.start_span(name, above, SpanKind[kind.upper()], given))


NO_CALL = ModelSpan(NOTHING)
_UNTRACED = nullcontext(NOTHING)
NO_TRACES = Traces()


def carried() -> dict[str, str]:
    """The header by which another process continues the present trace; empty without one."""
    if (context := _PARENT.get()) is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return carrier


def open_traces(address: str, share: float) -> Traces:
    """Traces sent to an OTLP/HTTP address. Raises ``InvalidRequest`` where OpenTelemetry is not installed.

    Of traces that begin here a ``share`` is kept; one that a client has begun is kept if the client keeps it.
    """
    if not address:
        return NO_TRACES
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415
    except ImportError as error:
        raise InvalidRequest(
            f"telemetry.otlp_url needs {error.name}, which this install does not have: run "
            "`pip install 'pagoda-llm[otel]'`.",
            param="telemetry.otlp_url",
        ) from error
    for name in ("opentelemetry.sdk", "opentelemetry.exporter"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a collector that is gone is told once a failure, not thrice
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=_EXPORT_SECONDS))
    resource = Resource.create({"service.name": "pagoda", "service.version": pagoda.__version__})
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(share), resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return Traces(provider.get_tracer("pagoda", pagoda.__version__), processor)


@contextmanager
def _under(span: Span) -> Iterator[None]:
    """A block whose spans stand below one, which ends with it."""
    from opentelemetry.trace import set_span_in_context  # noqa: PLC0415

    before = _PARENT.set(set_span_in_context(span._span) if span._span is not None else None)
    failure: str | None = None
    try:
        yield
    except PagodaError as error:
        failure = error.code
        raise
    except BaseException as error:
        failure = type(error).__name__
        raise
    finally:
        _PARENT.reset(before)
        span.end(failure)
