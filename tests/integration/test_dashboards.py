"""Dashboards, alerts and Prometheus's configuration, as an operator would use them: against a real run."""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks.panels.boards import boards, targets
from benchmarks.panels.scene import clients, scene
from tests.prometheus_server import DEPLOY, Prometheus, configure, prometheus

RATE_SECONDS = 10
PATIENCE_SECONDS = 75.0
NVML = '''
"""One GPU, as the library of this name would tell of it."""
from types import SimpleNamespace
NVML_TEMPERATURE_GPU = 0
class NVMLError(Exception):
    pass
def nvmlInit():
    pass
def nvmlDeviceGetCount():
    return 1
def nvmlDeviceGetHandleByIndex(place):
    return place
def nvmlDeviceGetName(device):
    return "H100"
def nvmlDeviceGetUtilizationRates(device):
    return SimpleNamespace(gpu=50)
def nvmlDeviceGetMemoryInfo(device):
    return SimpleNamespace(used=40, total=80)
def nvmlDeviceGetTemperature(device, sensor):
    return 60
def nvmlDeviceGetPowerUsage(device):
    return 300000
'''


def promtool(*words: str) -> None:
    """Fails with what promtool says."""
    done = subprocess.run(["promtool", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.requires("promtool")
def test_promtool_accepts_the_configuration_and_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    promtool("check", "rules", str(DEPLOY / "prometheus/alerts.yml"))
    promtool("test", "rules", str(DEPLOY / "prometheus/alerts.test.yml"))
    promtool("check", "config", str(configure(tmp_path, ("127.0.0.1:1", "127.0.0.1:2"), "token", 15)))


def test_every_alert_is_shown_to_fire_by_the_tests_of_rules() -> None:
    named = [
        line.split()[-1] for line in (DEPLOY / "prometheus/alerts.yml").read_text().splitlines() if "- alert:" in line
    ]
    tests = (DEPLOY / "prometheus/alerts.test.yml").read_text()
    assert len(set(named)) == len(named) > 10
    assert [name for name in named if f'alertname="{name}"' not in tests] == []


@pytest.mark.parametrize("name", list(boards()))
def test_a_dashboard_has_what_grafana_needs(name: str) -> None:
    board = boards()[name]
    assert board["uid"] == f"pagoda-{name}"
    assert len(board["uid"]) <= 40
    assert board["title"]
    assert board["schemaVersion"] >= 36
    assert {"from", "to"} <= board["time"].keys()
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["source"]["type"] == "datasource"
    assert variables["source"]["query"] == "prometheus"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["fieldConfig"]["defaults"]["unit"]
        _check_place(panel["gridPos"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
            assert "$model" not in target["expr"] or "model" in variables
    for one, other in combinations(panels, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), f"{one['title']} lies on {other['title']}"


def _check_place(place: dict[str, int]) -> None:
    assert place.keys() == {"x", "y", "w", "h"}
    assert place["x"] >= 0
    assert place["y"] >= 0
    assert place["w"] > 0
    assert place["h"] > 0
    assert place["x"] + place["w"] <= 24


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_dashboards_have_ids_of_their_own() -> None:
    assert len({board["uid"] for board in boards().values()}) == len(boards()) == 5


async def without_data(server: Prometheus) -> list[str]:
    """Queries of panels that give no number now."""
    missing = []
    for target in targets():
        found = await server.query(target.expanded(RATE_SECONDS))
        if not any(math.isfinite(value) for _, value in found):
            missing.append(f"{target.board}, {target.panel}: {target.expression}")
    return missing


async def check_alerts(server: Prometheus) -> None:
    """The rules are loaded, and evaluated without a fault."""
    groups: list[dict[str, Any]] = (await server.ask("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 10
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


@pytest.mark.timeout(240)
@pytest.mark.real_model
@pytest.mark.requires("prometheus")
async def test_every_panel_shows_data_of_a_real_run(tmp_path: Path) -> None:
    nvml = tmp_path / "library"
    nvml.mkdir()
    (nvml / "pynvml.py").write_text(NVML, encoding="utf-8")
    source = Path(__file__).resolve().parents[2] / "src"
    async with (
        scene(tmp_path, {"PYTHONPATH": f"{nvml}:{source}"}) as stage,
        aiohttp.ClientSession() as session,
    ):
        addresses = [url.removeprefix("http://") for url in stage.urls]
        with prometheus(tmp_path / "prometheus", addresses, stage.monitor) as server:
            load = asyncio.create_task(clients(stage, session))
            try:
                missing = ["nothing was asked yet"]
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while missing and not load.done():
                        missing = await without_data(server)
                        await asyncio.sleep(1)
            except TimeoutError:
                pytest.fail("no data: " + "\n".join(missing))
            finally:
                load.cancel()
                ended = (await asyncio.gather(load, return_exceptions=True))[0]
            assert isinstance(ended, asyncio.CancelledError), ended
            assert [value for _, value in await server.query('up{job="pagoda"}')] == [1, 1]
            await check_alerts(server)


@pytest.mark.requires("prometheus")
async def test_without_the_key_prometheus_is_not_let_in(tmp_path: Path) -> None:
    home = tmp_path / "home"
    from tests.services import process

    with process(home, environment={"PAGODA_ADMIN_KEY": "an-admin-key-of-the-test"}) as (url, _):
        async with aiohttp.ClientSession() as session, session.get(url + "/metrics") as response:
            assert response.status == 401


def test_the_programs_that_these_tests_need_are_installed_by_ci() -> None:
    script = (DEPLOY.parent / ".ci/run").read_text()
    assert '"prometheus:prometheus"' in script
    assert shutil.which("python3")
