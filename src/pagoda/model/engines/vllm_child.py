"""The vLLM engine process: starts vLLM's own server, says when it is ready, and ends it with the parent.

Started as ``python -m pagoda.model.engines.vllm_child``; configuration arrives as one JSON line on standard input (see
``Vllm.plan``). vLLM's server runs in a process group of its own, so that its engine processes end with it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import runpy
import signal
import socket
import subprocess
import sys
import time

from pagoda.model.engines.lifeline import follow_parent, read_config, report

_LOOK_SECONDS = 0.25
_TERM_SECONDS = 10.0


def main() -> int:
    """Start the server, report its address, and stay until it ends or the parent does."""
    servers: list[subprocess.Popen[bytes]] = []
    config = read_config(before_end=lambda: _end(servers))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent closes standard input first, which is what counts
    url = f"http://127.0.0.1:{_free_port()}"
    host = ["--host", "127.0.0.1", "--port", url.rpartition(":")[2], "--uvicorn-log-level", "warning"]
    server = subprocess.Popen(
        [sys.executable, "-m", "pagoda.model.engines.vllm_child", *host, *config["arguments"]], start_new_session=True
    )
    servers.append(server)
    while not _answers(url, config["key"]):
        if server.poll() is not None:
            report(error=f"vLLM ended with status {server.returncode}; its log says why")
            return 1
        time.sleep(_LOOK_SECONDS)
    report(url=url)
    status = server.wait()
    _end(servers)  # what it has left behind
    return status


def serve() -> None:
    """Be vLLM's server."""
    follow_parent(signal.SIGTERM)
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(url: str, key: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/health", headers={"Authorization": f"Bearer {key}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(servers: list[subprocess.Popen[bytes]]) -> None:
    """End the server's whole group, first kindly; GPU memory is free when this returns."""
    for server in servers:
        for word in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, word)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(_TERM_SECONDS)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve()
    else:
        sys.exit(main())
