"""Reading what an engine counts, from Prometheus's text format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pagoda.model.engines.contract import Health, Vitals


def totals(text: str) -> Mapping[str, float]:
    """Each metric's value by name, summed over its labels; lines that are no sample are passed over."""
    found: defaultdict[str, float] = defaultdict(float)
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        head, _, value = line.rpartition(" ")
        try:
            found[head.partition("{")[0]] += float(value)
        except ValueError:
            continue
    return found


def vllm_health(found: Mapping[str, float]) -> Health:
    """From vLLM's metrics; ``progress`` counts tokens read and written."""
    return Health(
        alive=True,
        running=int(found.get("vllm:num_requests_running", 0)),
        waiting=int(found.get("vllm:num_requests_waiting", 0)),
        progress=int(found.get("vllm:prompt_tokens_total", 0) + found.get("vllm:generation_tokens_total", 0)),
    )


def vllm_vitals(found: Mapping[str, float]) -> Vitals:
    """From vLLM's metrics; older versions name the cache after the GPU."""
    used = found.get("vllm:kv_cache_usage_perc", found.get("vllm:gpu_cache_usage_perc"))
    health = vllm_health(found)
    return Vitals(health.running, health.waiting, used)


def llamacpp_vitals(health: Health, slots: Iterable[Mapping[str, Any]]) -> Vitals:
    """From llama.cpp's slots: those that compute fill their part of the cache, the others only keep what may help."""
    filled = room = 0
    for slot in slots:
        room += slot["n_ctx"]
        if slot["is_processing"]:
            filled += slot["n_prompt_tokens"] + sum(each["n_decoded"] for each in slot["next_token"])
    return Vitals(health.running, health.waiting, min(1.0, filled / room) if room else None)


def llamacpp_health(found: Mapping[str, float]) -> Health:
    """From llama.cpp's metrics; ``progress`` counts tokens and steps: tokens are added when a request ends only."""
    counted = ("prompt_tokens_total", "tokens_predicted_total", "n_decode_total")
    return Health(
        alive=True,
        running=int(found.get("llamacpp:requests_processing", 0)),
        waiting=int(found.get("llamacpp:requests_deferred", 0)),
        progress=int(sum(found.get(f"llamacpp:{name}", 0) for name in counted)),
    )
