"""The checks behind ``pagoda doctor``."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import psutil

from pagoda.core.settings import Settings
from pagoda.model.catalog.opening import open_shelf
from pagoda.service.crew import read_crew
from pagoda.service.hardware import host_cores
from pagoda.service.presence import Presence

_GIB = 1024**3


@dataclass
class Finding:
    """One thing that was looked at."""

    what: str
    verdict: Literal["ok", "missing", "optional"]
    advice: str = ""


def examine(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """Look at the machine, the engines, the models and the service."""
    return [
        *_machine(settings),
        *_engines(),
        *_models(settings),
        _service(settings),
        *_extras(environment),
    ]


def _machine(settings: Settings) -> list[Finding]:
    memory, home = psutil.virtual_memory(), settings.home
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    cores = host_cores()
    enough = free > _GIB
    return [
        Finding(f"{cores} cores, {memory.total / _GIB:.1f} GiB memory ({memory.available / _GIB:.1f} free)", "ok"),
        Finding(
            f"home {home}, {free / _GIB:.1f} GiB free",
            "ok" if enough else "missing",
            "" if enough else "Free at least 1 GiB, or set PAGODA_HOME to another disk.",
        ),
    ]


def _engines() -> list[Finding]:
    return [
        Finding(told, "ok" if there else "missing", "" if there else f"Type: pip install {package}")
        for told, package in (("llama.cpp engine (xllamacpp)", "xllamacpp"), ("ONNX Runtime engine", "onnxruntime"))
        for there in (find_spec(package) is not None,)
    ]


def _models(settings: Settings) -> list[Finding]:
    shelf = open_shelf(settings)
    findings = []
    for entry in shelf.catalog.entries():
        if not entry.builtin or entry.optional:
            continue
        state = shelf.store.state(entry).state
        good = state == "present"
        advice = "" if good else f"Type: pagoda models pull {entry.id}"
        findings.append(Finding(f"model {entry.id}: {state}", "ok" if good else "missing", advice))
    return findings


def _service(settings: Settings) -> Finding:
    notice = Presence(settings.home).find()
    crew = read_crew(settings.home)
    if notice is not None and crew is not None:
        said = f"service runs at {crew.url}, {crew.alive} of {crew.wanted} workers live (process {crew.captain})"
        whole = crew.alive == crew.wanted
        return Finding(said, "ok" if whole else "missing", "" if whole else "Look at the service's log.")
    if notice is not None:
        return Finding(f"service runs at {notice.url} (process {notice.pid})", "ok")
    server = settings.server
    with socket.socket() as probe:
        taken = server.port != 0 and probe.connect_ex((server.host, server.port)) == 0
    if taken:
        return Finding(
            f"port {server.port} is used by another program",
            "missing",
            f"Type: pagoda serve --port {server.port + 1}",
        )
    return Finding("no service runs", "optional", "Type: pagoda serve")


def _extras(environment: Mapping[str, str]) -> list[Finding]:
    extras = {"torch": "train", "vllm": "vllm", "ray": "ray"}
    found = []
    for module, extra in extras.items():
        there = find_spec(module) is not None
        advice = "" if there else f"For the {extra} extra, type: pip install 'pagoda-llm[{extra}]'"
        found.append(Finding(f"{module}", "ok" if there else "optional", advice))
    proxies = sorted(name for name in ("HTTPS_PROXY", "https_proxy") if environment.get(name))
    if proxies:
        found.append(Finding(f"downloads go through the proxy of {proxies[0]}", "ok"))
    return found
