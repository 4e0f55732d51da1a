"""What is counted, in Prometheus's terms: one ``Telemetry`` a process, passed down; no global registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

import pagoda
from pagoda.service.counter import LoopCounter, LoopGauge
from pagoda.service.fleet import Fleet
from pagoda.service.histogram import LoopHistogram
from pagoda.service.traces import NO_TRACES, Traces

Metric = TypeVar("Metric", Counter, Gauge, Histogram)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_OVERHEAD_SECONDS = (0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an answer must keep to count as good: seconds to its first text, and between its pieces on average."""

    first: float
    gap: float


NO_BOUNDS = Bounds(float("inf"), float("inf"))


class Telemetry:
    """The metrics of this process."""

    def __init__(self, bounds: Bounds = NO_BOUNDS, traces: Traces = NO_TRACES) -> None:
        self.bounds = bounds
        self.traces = traces
        self.registry = CollectorRegistry()
        self.fleet = Fleet()
        self._children: dict[tuple[object, tuple[str, ...]], Counter | Gauge | Histogram] = {}
        self.requests = LoopCounter(
            "llm_requests", "Model calls by outcome.", ("model", "verb", "status"), registry=self.registry
        )
        self.active = LoopGauge("llm_active_requests", "Model calls in flight.", ("model",), registry=self.registry)
        self.duration = LoopHistogram(
            "llm_request_duration_seconds",
            "Time of a whole model call.",
            ("model", "verb"),
            _SECONDS,
            self.registry,
        )
        self.first_token = LoopHistogram(
            "llm_time_to_first_token_seconds",
            "Time to the first text of an answer.",
            ("model",),
            _SECONDS,
            self.registry,
        )
        self.tokens = LoopCounter("llm_tokens", "Tokens by kind.", ("model", "kind"), registry=self.registry)
        self.http_requests = LoopCounter(
            "nlp_requests", "HTTP requests by endpoint and status.", ("endpoint", "status"), registry=self.registry
        )
        self.http_duration = LoopHistogram(
            "nlp_request_duration_seconds",
            "Time of a whole HTTP request, its stream included.",
            ("endpoint",),
            _SECONDS,
            self.registry,
        )
        self.engine_ready = Gauge(
            "pagoda_engine_ready", "1 while the model's engine is ready.", ("model",), registry=self.registry
        )
        self.engine_restarts = Gauge(
            "pagoda_engine_restarts", "Times the model's engine ended unasked.", ("model",), registry=self.registry
        )
        self._count_answers()
        self._count_processes()
        self._count_queues()
        self._count_memory()
        self._count_cache()
        self._count_keys()
        self._count_replicas()
        self._count_quality()
        self._count_agents()

    def _count_answers(self) -> None:
        self.token_gaps = LoopHistogram(
            "llm_inter_token_latency_seconds",
            "Time between two pieces of an answer that an engine computes.",
            ("model",),
            _TOKEN_SECONDS,
            self.registry,
        )
        self.finished = LoopCounter(
            "llm_finishes", "Answers by why they ended.", ("model", "reason"), registry=self.registry
        )
        self.goodput = LoopCounter(
            "llm_goodput_requests",
            "Answers whose first text and pace kept the bounds of telemetry.goodput_*.",
            ("model",),
            registry=self.registry,
        )
        self.overhead = LoopHistogram(
            "pagoda_overhead_seconds",
            "Time to an answer's head that was neither the line's nor an engine's.",
            ("endpoint",),
            _OVERHEAD_SECONDS,
            self.registry,
        )

    def _count_processes(self) -> None:
        self.processes = Gauge("pagoda_processes", "Processes that serve this home.", registry=self.registry)
        self.processes.set(1)
        build = Gauge("pagoda_build_info", "1; the version is the label.", ("version",), registry=self.registry)
        build.labels(pagoda.__version__).set(1)
        self.home_free = Gauge(
            "pagoda_home_free_bytes", "Room left on the disk that holds PAGODA_HOME.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def _count_queues(self) -> None:
        self.queue_wait = LoopHistogram(
            "pagoda_queue_wait_seconds",
            "Time that admitted requests waited for their turn.",
            ("model", "priority"),
            _SECONDS,
            self.registry,
        )
        self.queue_depth = Gauge(
            "pagoda_queue_depth", "Requests that wait for their turn.", ("model", "priority"), registry=self.registry
        )
        self.queue_refusals = Counter(
            "pagoda_queue_refusals", "Requests that got no turn.", ("model", "reason"), registry=self.registry
        )

    def _count_memory(self) -> None:
        self.model_memory = Gauge(
            "pagoda_model_memory_bytes",
            "Memory of a model: needed (estimate), held (set aside), used (seen).",
            ("model", "pool", "kind"),
            registry=self.registry,
        )
        self.memory_budget = Gauge(
            "pagoda_memory_budget_bytes", "Memory that all models may fill.", ("pool",), registry=self.registry
        )
        self.nlp_model_memory = Gauge(
            "nlp_model_memory_bytes",
            "Memory that a model's engine was last seen to use.",
            ("model",),
            registry=self.registry,
        )
        self.engine_requests = Gauge(
            "llm_engine_requests",
            "Requests inside an engine, by its own word.",
            ("model", "state"),
            registry=self.registry,
        )
        self.kv_used = Gauge(
            "llm_kv_cache_usage_ratio",
            "Share of an engine's KV cache that requests fill, by its own word.",
            ("model",),
            registry=self.registry,
        )
        self.model_loads = Gauge(
            "pagoda_model_loads", "Times the model's engine was started.", ("model",), registry=self.registry
        )

    def _count_cache(self) -> None:
        self.cache_requests = LoopCounter(
            "pagoda_cache_requests", "Calls by what the cache did.", ("model", "result"), registry=self.registry
        )
        self.cache_events = LoopCounter(
            "pagoda_cache_events", "Entries by what became of them.", ("event",), registry=self.registry
        )
        self.cache_ignored = Counter(
            "pagoda_cache_ignored", "Entries that could not be used, by reason.", ("reason",), registry=self.registry
        )
        self.cache_failures = Counter(
            "pagoda_cache_store_failures",
            "Times Redis failed a request, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.cache_working = Gauge(
            "pagoda_cache_store_up", "1 while the store of answers works.", registry=self.registry
        )
        self.cache_entries = Gauge("pagoda_cache_entries", "Answers kept in this process.", registry=self.registry)
        self.cache_bytes = Gauge(
            "pagoda_cache_bytes", "Memory of answers kept in this process.", registry=self.registry
        )

    def _count_replicas(self) -> None:
        replica = ("pool", "replica")
        self.replica_up = Gauge(
            "pagoda_replica_up", "1 while health keeps the replica in its pool.", replica, registry=self.registry
        )
        self.replica_state = Gauge(
            "pagoda_replica_state", "1 for the replica's state.", (*replica, "state"), registry=self.registry
        )
        self.breaker_state = Gauge(
            "pagoda_breaker_state",
            "1 for the state of the replica's circuit.",
            (*replica, "state"),
            registry=self.registry,
        )
        self.replica_outstanding = Gauge(
            "pagoda_replica_outstanding", "Requests that are on the replica.", replica, registry=self.registry
        )
        self.attempts = Counter(
            "pagoda_attempts", "Requests sent to replicas, by outcome.", (*replica, "outcome"), registry=self.registry
        )
        self.retries = Counter(
            "pagoda_retries", "Requests sent to a further replica.", ("pool",), registry=self.registry
        )
        self.continuations = Counter(
            "pagoda_continuations", "Answers that broke off in the middle.", ("pool", "result"), registry=self.registry
        )
        self.fallbacks = Counter(
            "pagoda_fallbacks", "Requests that went on to another model.", ("model", "to"), registry=self.registry
        )

    def _count_agents(self) -> None:
        self.tool_calls = Counter(
            "pagoda_tool_calls", "Attempts at calls of tools, by outcome.", ("tool", "outcome"), registry=self.registry
        )
        self.tool_duration = Histogram(
            "pagoda_tool_duration_seconds",
            "Time of an attempt at a call.",
            ("tool",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.agent_works = Counter(
            "pagoda_agent_works",
            "Pieces of work on agents' runs, by how they ended.",
            ("status",),
            registry=self.registry,
        )

    def _count_quality(self) -> None:
        scored = ("model", "prompt", "version", "rule")
        self.quality_answers = Counter(
            "pagoda_quality_answers", "Sampled answers that were scored, by rule.", scored, registry=self.registry
        )
        self.quality_points = Counter(
            "pagoda_quality_points", "Their scores added up, each from 0 to 1.", scored, registry=self.registry
        )
        self.quality_unjudged = Counter(
            "pagoda_quality_unjudged", "Answers that the judge could not judge.", ("model",), registry=self.registry
        )
        self.quality_dropped = Counter(
            "pagoda_quality_dropped",
            "Sampled answers that came faster than they could be scored.",
            registry=self.registry,
        )

    def _count_keys(self) -> None:
        self.access_refusals = Counter(
            "pagoda_access_refusals", "Requests that were not let in, by reason.", ("reason",), registry=self.registry
        )
        self.keys_fresh = Gauge(
            "pagoda_keys_fresh", "1 while keys in memory are renewed from the database.", registry=self.registry
        )

    def child(self, metric: Metric, *labels: str) -> Metric:
        """The metric's child of these labels: ``labels()`` of the library, which takes a lock, asked only once."""
        known = self._children.get((metric, labels))
        if known is None:
            known = self._children[metric, labels] = metric.labels(*labels)
        return known  # type: ignore[return-value]

    def expose(self) -> bytes:
        """All metrics of this home's processes in Prometheus's text format."""
        return self.fleet.expose(self.registry)
