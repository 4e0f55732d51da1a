"""What is counted, in Prometheus's terms: one ``Telemetry`` a process, passed down; no global registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Telemetry:
    """The metrics of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llm_requests", "Model calls by outcome.", ("model", "verb", "status"), registry=self.registry
        )
        self.active = Gauge("llm_active_requests", "Model calls in flight.", ("model",), registry=self.registry)
        self.duration = Histogram(
            "llm_request_duration_seconds",
            "Time of a whole model call.",
            ("model", "verb"),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.first_token = Histogram(
            "llm_time_to_first_token_seconds",
            "Time to the first text of an answer.",
            ("model",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.tokens = Counter("llm_tokens", "Tokens by kind.", ("model", "kind"), registry=self.registry)
        self.http_requests = Counter(
            "nlp_requests", "HTTP requests by endpoint and status.", ("endpoint", "status"), registry=self.registry
        )
        self.http_duration = Histogram(
            "nlp_request_duration_seconds",
            "Time of a whole HTTP request, its stream included.",
            ("endpoint",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.engine_ready = Gauge(
            "pagoda_engine_ready", "1 while the model's engine is ready.", ("model",), registry=self.registry
        )
        self.engine_restarts = Gauge(
            "pagoda_engine_restarts", "Times the model's engine ended unasked.", ("model",), registry=self.registry
        )

    def expose(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
