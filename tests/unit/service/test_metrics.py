"""What is counted, and that it is counted right: in one process, in several, of engines and of GPUs."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pagoda.core.settings import Settings
from pagoda.core.types import Delta, Event, Finish, Started, Usage
from pagoda.model.engines.contract import Health, Vitals
from pagoda.model.engines.exposition import llamacpp_vitals, totals, vllm_vitals
from pagoda.service import telemetry as metrics
from pagoda.service.counter import LoopCounter, LoopGauge
from pagoda.service.fleet import Fleet, from_wire, snapshot, to_wire
from pagoda.service.gpus import GpuMetrics
from pagoda.service.histogram import LoopHistogram
from pagoda.service.pace import Pace
from tests.services import Service, fake_model, running

BOUNDS = (0.01, 0.1, 1.0)


@given(st.lists(st.floats(0, 5)))
def test_the_cheap_histogram_tells_what_the_library_s_own_tells(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    labels = ("model", "verb")
    told = LoopHistogram("gap_seconds", "Gaps.", labels, BOUNDS, ours)
    other = Histogram("gap_seconds", "Gaps.", labels, registry=theirs, buckets=BOUNDS)
    for place, value in enumerate(values):
        told.tally("m", str(place % 2)).observe(value)
        other.labels("m", str(place % 2)).observe(value)
    lines = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == lines


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5))))
def test_the_cheap_counter_and_gauge_tell_what_the_library_s_own_tell(counted: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counter, other = (
        LoopCounter("asked", "Asked.", ("who",), ours),
        Counter("asked", "Asked.", ("who",), registry=theirs),
    )
    gauge, level = LoopGauge("busy", "Busy.", ("who",), ours), Gauge("busy", "Busy.", ("who",), registry=theirs)
    for who, amount in counted:
        counter.count(who).inc(amount)
        other.labels(who).inc(amount)
        gauge.count(who).inc(-amount)
        level.labels(who).dec(amount)
    told, expected = (generate_latest(each).splitlines() for each in (ours, theirs))
    when = re.compile(rb"(asked_created\{.*\}) [0-9.e+]+")
    assert [when.sub(rb"\1", line) for line in told] == [when.sub(rb"\1", line) for line in expected]


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))), min_size=1, max_size=4), st.data())
def test_the_sum_over_processes_is_the_sum_of_all_that_was_counted(
    counted: list[list[tuple[str, int]]], data: st.DataObject
) -> None:
    fleet, expected = Fleet(), dict.fromkeys("abc", 0)
    registries = []
    for lines in counted:
        registry = CollectorRegistry()
        counter = Counter("asked", "Asked.", ("who",), registry=registry)
        Gauge("busy", "Busy.", registry=registry).set(1)
        for who, count in lines:
            counter.labels(who).inc(count)
            expected[who] += count
        registries.append(registry)
    for place, registry in enumerate(registries[1:]):
        fleet.tell(str(place), from_wire(to_wire(snapshot(registry))))
    gone = data.draw(st.sets(st.integers(0, 3)).map(lambda places: {p for p in places if p < len(registries) - 1}))
    for place in gone:
        fleet.leave(str(place))
    told = fleet.expose(registries[0]).decode()
    for who, count in expected.items():
        found = [
            float(line.split()[-1]) for line in told.splitlines() if line.startswith(f'asked_total{{who="{who}"}}')
        ]
        assert sum(found) == count
    assert f"busy {len(registries) - len(gone)}.0" in told


class ScriptedNvml:
    """NVML as the library ``pynvml`` offers it, with one GPU that tells no power."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, *, broken: bool = False) -> None:
        self._broken = broken

    def nvmlInit(self) -> None:  # noqa: N802
        if self._broken:
            raise self.NVMLError("Driver Not Loaded")

    def __getattr__(self, name: str) -> Any:
        def told(*about: Any) -> Any:
            if name == "nvmlDeviceGetPowerUsage":
                raise self.NVMLError("Not Supported")
            return {
                "nvmlDeviceGetCount": 1,
                "nvmlDeviceGetHandleByIndex": "device",
                "nvmlDeviceGetName": b"H100",
                "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37),
                "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=5, total=80),
                "nvmlDeviceGetTemperature": 41,
            }[name]

        return told


def test_a_gpu_tells_its_use_and_what_it_cannot_tell_is_absent() -> None:
    registry = CollectorRegistry()
    GpuMetrics(registry, ScriptedNvml())
    labels = {"gpu": "0", "name": "H100"}
    assert registry.get_sample_value("pagoda_gpu_utilization_ratio", labels) == 0.37
    assert registry.get_sample_value("pagoda_gpu_memory_used_bytes", labels) == 5
    assert registry.get_sample_value("pagoda_gpu_memory_total_bytes", labels) == 80
    assert registry.get_sample_value("pagoda_gpu_temperature_celsius", labels) == 41
    assert "pagoda_gpu_power_watts" not in generate_latest(registry).decode()


def test_without_a_gpu_there_are_no_gpu_metrics_rather_than_zeros() -> None:
    registry = CollectorRegistry()
    GpuMetrics(registry, ScriptedNvml(broken=True))
    assert b"gpu" not in generate_latest(registry)


def test_engines_tell_their_cache_by_their_own_metrics() -> None:
    text = (
        'vllm:num_requests_running{m="x"} 2\nvllm:num_requests_waiting{m="x"} 3\nvllm:kv_cache_usage_perc{m="x"} 0.25\n'
    )
    assert vllm_vitals(totals(text)) == Vitals(2, 3, 0.25)
    busy = {"n_ctx": 100, "is_processing": True, "n_prompt_tokens": 30, "next_token": [{"n_decoded": 10}]}
    idle = {"n_ctx": 100, "is_processing": False}
    assert llamacpp_vitals(Health(True, 1, 0, 9), [busy, idle]) == Vitals(1, 0, 0.2)


def test_an_answer_s_gaps_and_finish_are_counted_and_those_of_a_cached_one_are_not() -> None:
    telemetry = metrics.Telemetry()

    def answer(cache: Any) -> None:
        pace = Pace(telemetry, "m")
        started = Started("m", "fake")
        events: tuple[Event, ...] = (
            replace(started, cache=cache),
            *[Delta(0, "x")] * 5,
            Finish(0, "stop"),
            Usage(3, 5),
        )
        for event in events:
            pace.note(event)
        pace.end()

    answer("miss")
    answer("hit")
    value = telemetry.registry.get_sample_value
    assert value("llm_inter_token_latency_seconds_count", {"model": "m"}) == 4
    assert value("llm_time_to_first_token_seconds_count", {"model": "m"}) == 2
    assert value("llm_finishes_total", {"model": "m", "reason": "stop"}) == 2
    assert value("llm_tokens_total", {"model": "m", "kind": "completion"}) == 5


@pytest.mark.parametrize(
    ("bounds", "good"), [(metrics.NO_BOUNDS, 1), (metrics.Bounds(0, 60), None), (metrics.Bounds(60, 0), None)]
)
def test_goodput_counts_answers_that_kept_both_bounds(bounds: metrics.Bounds, good: float | None) -> None:
    telemetry = metrics.Telemetry(bounds)
    pace = Pace(telemetry, "m")
    for _ in range(3):
        pace.note(Delta(0, "x"))
    pace.end()
    assert telemetry.registry.get_sample_value("llm_goodput_requests_total", {"model": "m"}) == good


async def scraped(service: Service) -> dict[str, float]:
    """The samples that ``/metrics`` shows, by name with labels."""
    async with service.session.get(service.url + "/metrics") as response:
        assert response.status == 200
        lines = (await response.text()).splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}


async def test_overhead_leaves_out_the_engine_s_time(settings: Settings) -> None:
    slow = fake_model(rules=[{"contains": "late", "first_seconds": 1.0, "text": "at last"}])
    async with running(settings, [slow]) as service:
        assert (await service.chat("warm up"))[0] == 200
        before = await scraped(service)
        assert (await service.chat("late"))[0] == 200
        after = await scraped(service)

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    endpoint = '{endpoint="/v1/chat/completions"}'
    assert grown(f"pagoda_overhead_seconds_count{endpoint}") == 1
    spent = grown(f"nlp_request_duration_seconds_sum{endpoint}") - grown(f"pagoda_overhead_seconds_sum{endpoint}")
    assert spent >= 1.0
    assert after['llm_requests_total{model="fake-chat",status="ok",verb="generate"}'] == 2
    assert after['llm_engine_requests{model="fake-chat",state="running"}'] == 0
    assert after["nlp_requests_total" + endpoint[:-1] + ',status="200"}'] == 2
    assert after["pagoda_home_free_bytes"] > 0
    assert after["pagoda_processes"] == 1


async def test_paths_and_names_from_outside_never_become_labels(settings: Settings) -> None:
    async with running(settings, [fake_model()]) as service:
        for place in range(5):
            async with service.session.get(f"{service.url}/no/such/{place}") as response:
                assert response.status == 404
            assert (await service.chat("hi", model=f"nobody-{place}"))[0] == 404
        told = "\n".join(await scraped(service))
    assert "no/such" not in told
    assert "nobody" not in told
