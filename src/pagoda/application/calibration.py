"""Calibrating the semantic cache with this home's embedding model, and where the outcome is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pagoda.application.client import home_door
from pagoda.core.ports import Inference
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Embed
from pagoda.service.cache.calibration import Calibration, calibrate, read_pairs
from pagoda.service.cache.semantic import Approval, keep_approval

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What embeddings alone do, what they do with the guard, and what the service will go by."""

    bare: Calibration
    guarded: Calibration
    approval: Approval


def calibration_path(settings: Settings) -> Path:
    """The file that the service reads when it starts."""
    return settings.home / "cache" / "semantic.json"


async def calibrate_home(settings: Settings, environment: Mapping[str, str]) -> Calibrated:
    """Measure with the embedding model of the settings, and keep the outcome."""
    model, allowed = settings.defaults.embedding, settings.cache.semantic_max_false_hits
    pairs = read_pairs()
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.one, pair.other)))
    async with home_door(settings, environment) as door:
        vectors = await _vectors(door, model, texts)
    bare, guarded = (calibrate(pairs, vectors, allowed, guarded=each) for each in (False, True))
    approval = Approval.of(model, guarded, allowed)
    keep_approval(calibration_path(settings), approval)
    return Calibrated(bare, guarded, approval)


async def _vectors(door: Inference, model: str, texts: list[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for start in range(0, len(texts), _BATCH):
        batch = tuple(texts[start : start + _BATCH])
        answer = await door.embed(Embed(model=model, inputs=batch, kind="query"), Call(purpose="evaluation"))
        found |= dict(zip(batch, answer.vectors, strict=True))
    return found
