"""How many lines a batch asks at once: what the engines of its model compute, also where the model is a pool."""

from __future__ import annotations

import dataclasses

from pagoda.application.batching import parallel_of
from pagoda.core.pool_settings import PoolSettings, ReplicaSettings
from pagoda.core.settings import Settings
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.engines import engine_kind
from tests.services import fake_model


def test_a_batch_asks_as_many_lines_at_once_as_its_model_or_pool_computes(settings: Settings) -> None:
    open_shelf(settings).catalog.add(fake_model("small", parallel=3))
    pool = PoolSettings(name="many", replicas=(ReplicaSettings(model="small", copies=4),))
    far = PoolSettings(name="far", replicas=(ReplicaSettings(model="theirs", url="http://127.0.0.1:1/v1"),))
    settings = dataclasses.replace(settings, pools={"many": pool, "far": far})

    assert parallel_of(settings, "small") == 3
    assert parallel_of(settings, "many") == 12
    assert parallel_of(settings, "far") == engine_kind("remote").parallel
