"""``deploy/compose``: Compose itself reads it, and what it says fits to what it starts."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest
import yaml

from pagoda.core.configuration import options
from tests.deployed import ROOT
from tests.integration.test_images import read_image

FOLDER = ROOT / "deploy" / "compose"
SECRETS = {"PAGODA_ADMIN_KEY": "an-admin-key-of-the-tests", "POSTGRES_PASSWORD": "word", "GRAFANA_PASSWORD": "word"}


def composed(profile: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker-compose", "--file", str(FOLDER / "compose.yaml"), "config"],
        env={"PATH": os.environ["PATH"], "COMPOSE_PROFILES": profile, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.requires("docker-compose")
@pytest.mark.parametrize(("profile", "suffix"), [("cpu", ""), ("gpu", "-gpu")])
def test_compose_reads_both_profiles(profile: str, suffix: str) -> None:
    read = composed(profile, **SECRETS)
    assert read.returncode == 0, read.stderr
    services: dict[str, Any] = yaml.safe_load(read.stdout)["services"]
    ours = {f"pagoda-a{suffix}", f"pagoda-b{suffix}"}
    stores = {"redis-cache", "redis-limits", "postgres"}
    assert ours | stores | {"nginx", "prometheus", "grafana"} <= set(services)
    addresses = {name: services[name]["networks"]["default"]["ipv4_address"] for name in (*ours, "nginx")}
    assert len(set(addresses.values())) == 3
    known = {host: address for host, _, address in (line.partition(":") for line in services["nginx"]["extra_hosts"])}
    for name in ours:
        service = services[name]
        assert known[name.removesuffix("-gpu")] == addresses[name]
        assert service["environment"]["PAGODA_SERVER_TRUSTED_PROXIES"] == addresses["nginx"]
        assert {
            store for store, how in service["depends_on"].items() if how["condition"] == "service_healthy"
        } == stores
        reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert bool(reserved) == (profile == "gpu")
    for name in stores | {"nginx", "prometheus"}:
        assert services[name]["healthcheck"]["test"], name


@pytest.mark.requires("docker-compose")
@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_refuses_to_start_without_a_secret(missing: str) -> None:
    read = composed("cpu", **{name: value for name, value in SECRETS.items() if name != missing})
    assert read.returncode != 0
    assert missing in read.stderr


def test_every_setting_is_one_and_every_file_mounted_is_there() -> None:
    document = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    known = {option.env for option in options()}
    pagoda = document["services"]["pagoda-a"]
    assert set(pagoda["environment"]) <= known
    assert set(read_image("cpu").environment) - {"PYTHONUNBUFFERED", "HF_HOME", "PAGODA_HOME"} <= known
    example = (FOLDER / "env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+):\?", (FOLDER / "compose.yaml").read_text(encoding="utf-8"))) == set(SECRETS)
    for name in SECRETS:
        assert re.search(rf"^{name}=$", example, re.MULTILINE), f"{name} has a value or no line in env.example"
    mounted = [
        volume.split(":")[0] for service in document["services"].values() for volume in service.get("volumes", [])
    ]
    for source in mounted:
        if source.startswith("../"):
            assert (FOLDER / source).exists(), source
    grace = int(pagoda["environment"]["PAGODA_SERVER_DRAIN_GRACE_SECONDS"])
    idle = re.search(r"keepalive_timeout (\d+)s;  # a Pagoda", (ROOT / "deploy/nginx/nginx.conf").read_text("utf-8"))
    assert idle is not None
    assert int(idle[1]) < grace
    assert int(pagoda["stop_grace_period"].removesuffix("s")) > 2 * grace + 2 * 30
