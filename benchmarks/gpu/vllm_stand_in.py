"""vLLM's server as far as Pagoda speaks to it, with the fake engine's answers: its arguments, metrics and sleep.

``shadow`` puts it in vLLM's place for engine processes: ``PYTHONPATH`` begins with the folder that it gives.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from pagoda.model.engines.fake_child import build_app

_HERE = Path(__file__).parents[2]


def shadow(folder: Path) -> str:
    """Write a package ``vllm`` whose server this is; what ``PYTHONPATH`` must be."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text("from benchmarks.gpu.vllm_stand_in import serve\n\nserve()\n")
    return f"{folder}{os.pathsep}{_HERE}"


def serve() -> None:
    """Be the server, as its arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--stand-in-fault", choices=("sleep", "wake", "deaf"), help="what does not work")
    args, _ = parser.parse_known_args(sys.argv[1:])
    app = build_app({"token_seconds": 0.01}, os.environ["PAGODA_ENGINE_KEY"], args.max_model_len)
    app.middlewares.append(_Sleep(args).handle)
    web.run_app(app, host="127.0.0.1", port=args.port, print=None, handler_cancellation=True)


class _Sleep:
    """What the fake engine does not have."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._context = args.max_model_len
        self._fault = args.stand_in_fault
        self._sleeps = args.enable_sleep_mode and os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
        self._asleep = False

    @web.middleware
    async def handle(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Answer for vLLM, or let the fake engine answer."""
        match request.path:
            case "/v1/models":
                return web.json_response({"data": [{"id": "stand-in", "max_model_len": self._context}]})
            case "/metrics":
                return web.Response(text="vllm:num_requests_running 0\n")
            case "/sleep" if self._sleeps:
                return self._become(asleep=True, works=self._fault != "sleep")
            case "/wake_up" if self._sleeps:
                return self._become(asleep=False, works=self._fault != "wake")
            case "/is_sleeping" if self._sleeps:
                return web.json_response({"is_sleeping": self._asleep})
        if self._asleep and request.method == "POST":
            return web.json_response({"error": {"message": "asked in its sleep"}}, status=500)
        response: web.StreamResponse = await handler(request)
        return response

    def _become(self, *, asleep: bool, works: bool) -> web.Response:
        if not works:
            return web.json_response({"error": {"message": "CUDA error: out of memory"}}, status=500)
        self._asleep = asleep and self._fault != "deaf"
        return web.Response()
