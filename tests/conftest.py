"""Rules for all tests: no network but loopback; what is missing skips with a reason, or fails if it is required."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from pagoda.core.configuration import load_settings
from pagoda.core.settings import Settings
from pagoda.model.catalog.opening import open_shelf

hypothesis.settings.register_profile("pagoda", deadline=None)  # no test depends on the machine's speed
hypothesis.settings.load_profile("pagoda")

BUILTIN = ("smollm2-135m-instruct", "all-minilm-l6-v2", "multilingual-e5-small")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires"):
        program = marker.args[0]
        if shutil.which(program) is None:
            _skip(f"the program {program} is not installed")
    if item.get_closest_marker("real_model") is not None:
        shelf = open_shelf(load_settings({}, os.environ, Path("/")))
        missing = [name for name in BUILTIN if shelf.store.state(shelf.catalog.resolve(name)).state != "present"]
        if missing:
            _skip(f"models are missing: {', '.join(missing)} (`make install` fetches them)")


def _skip(reason: str) -> None:
    if os.environ.get("PAGODA_REQUIRE") == "all":
        pytest.fail(f"PAGODA_REQUIRE=all: {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True, scope="session")
def _refuse_network() -> Iterator[None]:
    """Any connection that leaves this machine is a bug of the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def models_directory() -> Path:
    """Where `make install` put the built-in models."""
    return load_settings({}, os.environ, Path("/")).models_directory


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of their own and no models but those a test adds."""
    return settings_in(tmp_path)


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """``settings``, for a service that all tests of a module share."""
    return settings_in(tmp_path_factory.mktemp("module"))


def settings_in(folder: Path) -> Settings:
    """Settings whose home lies in a folder."""
    environment = {"HOME": str(folder), "PAGODA_HOME": str(folder / "home")}
    return load_settings({"server.port": 0, "engines.retry_seconds": "0.05"}, environment, folder)
