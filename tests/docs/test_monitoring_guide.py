"""The monitoring guide names every metric there is, with its kind and labels, and none that is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pagoda.service.gpus import GpuMetrics
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs/guides"
_ENDINGS = ("_bucket", "_sum", "_count")


def described() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name, kind, labels and words of each metric of a service."""
    telemetry = Telemetry()
    LimitMetrics(telemetry.registry, by_key=True)
    GpuMetrics(telemetry.registry)
    found = []
    for collector in list(telemetry.registry._collector_to_names):
        describe = getattr(collector, "describe", collector.collect)
        for metric in [*describe()] or [*collector.collect()]:
            labels = getattr(metric, "_labelnames", None) or getattr(collector, "_labelnames", None) or ()
            name = metric.name + ("_total" if metric.type == "counter" else "")
            found.append((name, metric.type, tuple(labels), metric.documentation))
    return found


@pytest.mark.parametrize("guide", ["monitoring.md", "monitoring.zh.md"])
def test_every_metric_is_in_the_guide_with_its_kind_and_labels(guide: str) -> None:
    text = (GUIDES / guide).read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\w+) \| (.*?) ?\| (\S.*) \|$", text)
    shown = [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows]
    assert shown == [(name, kind, labels) for name, kind, labels, _ in described()]
    if guide == "monitoring.md":
        assert [words for *_, words in rows] == [words for *_, words in described()]


def test_dashboards_and_alerts_ask_only_for_metrics_that_there_are() -> None:
    known = {name for name, *_ in described()} | {"up"}
    asked = set(re.findall(r"\b(?:llm|nlp|pagoda|process)_\w+", (ROOT / "deploy/prometheus/alerts.yml").read_text()))
    for path in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                asked |= set(re.findall(r"\b(?:llm|nlp|pagoda|process)_\w+", target["expr"]))
    plain = {re.sub("|".join(f"{ending}$" for ending in _ENDINGS), "", name) for name in asked}
    assert plain <= known | {"pagoda_token"}
    assert len(plain) > 30
