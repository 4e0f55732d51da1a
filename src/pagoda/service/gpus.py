"""GPUs as NVIDIA's management library tells of them: use, memory, heat and power, by device.

A machine without a GPU, its driver or the library tells nothing: absent, not zero. Asked at each scrape, never between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

_LABELS = ("gpu", "name")
_WATTS = 1e-3
_FAMILIES = {
    "pagoda_gpu_utilization_ratio": "Share of the last moment in which the GPU computed.",
    "pagoda_gpu_memory_used_bytes": "GPU memory in use.",
    "pagoda_gpu_memory_total_bytes": "GPU memory there is.",
    "pagoda_gpu_temperature_celsius": "Temperature of the GPU.",
    "pagoda_gpu_power_watts": "Power the GPU draws.",
}


class GpuMetrics(Collector):
    """All GPUs of this machine. ``nvml`` stands in for the library ``pynvml``."""

    def __init__(self, registry: CollectorRegistry, nvml: Any = None) -> None:
        self._nvml = nvml
        self._open: bool | None = None
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """The names, for the registry."""
        return [GaugeMetricFamily(name, text, labels=_LABELS) for name, text in _FAMILIES.items()]

    def collect(self) -> Iterable[Metric]:
        """What each GPU tells; nothing where there is none."""
        if self._open is None:
            self._open = self._start()
        if not self._open:
            return []
        families = {name: GaugeMetricFamily(name, text, labels=_LABELS) for name, text in _FAMILIES.items()}
        for place in range(self._ask(self._nvml.nvmlDeviceGetCount) or 0):
            device = self._ask(self._nvml.nvmlDeviceGetHandleByIndex, place)
            if device is not None:
                self._look(families, str(place), device)
        return [family for family in families.values() if family.samples]

    def _look(self, families: dict[str, GaugeMetricFamily], place: str, device: Any) -> None:
        nvml = self._nvml
        name = self._ask(nvml.nvmlDeviceGetName, device) or ""
        labels = (place, name.decode() if isinstance(name, bytes) else str(name))
        use = self._ask(nvml.nvmlDeviceGetUtilizationRates, device)
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, device)
        heat = self._ask(nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, device)
        for family, value in (
            ("pagoda_gpu_utilization_ratio", None if use is None else use.gpu / 100),
            ("pagoda_gpu_memory_used_bytes", None if memory is None else memory.used),
            ("pagoda_gpu_memory_total_bytes", None if memory is None else memory.total),
            ("pagoda_gpu_temperature_celsius", heat),
            ("pagoda_gpu_power_watts", None if power is None else power * _WATTS),
        ):
            if value is not None:
                families[family].add_metric(labels, value)

    def _start(self) -> bool:
        try:
            self._nvml = self._nvml or import_module("pynvml")
            self._nvml.nvmlInit()
        except ImportError:
            return False
        except self._nvml.NVMLError as error:
            logger.debug("no GPU is watched: %s", error)
            return False
        return True

    def _ask(self, question: Callable[..., Any], *about: Any) -> Any:
        """The library's answer; ``None`` for what a device cannot tell (a virtual one tells no power)."""
        try:
            return question(*about)
        except self._nvml.NVMLError as error:
            logger.debug("a GPU does not tell: %s", error)
            return None
