"""The onnxruntime engine process: ``python -m pagoda.model.engines.onnxruntime_child``.

Configuration arrives as one JSON line on standard input (see ``OnnxRuntime.plan``); the address goes out the same way.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from pagoda.core.errors import PagodaError
from pagoda.model.engines.child_http import listen, open_app
from pagoda.model.engines.lifeline import read_config, report


async def serve(config: Mapping[str, Any]) -> int:
    """Load the model and serve it on a free loopback port until cancelled."""
    from pagoda.model.engines.onnxruntime_child.encoder import Encoder  # noqa: PLC0415  (after the parent is known)

    try:
        encoder = await asyncio.to_thread(Encoder, config)
    except PagodaError as error:
        report(error=error.message, code=error.code)
        return 1

    async def health(request: web.Request) -> web.Response:
        del request
        told = {"running": encoder.busy, "waiting": 0, "progress": encoder.served, "context": encoder.context}
        return web.json_response(told)

    app = open_app(encoder, config["key"])
    app.router.add_get("/health", health)
    report(url=await listen(app))
    await asyncio.Event().wait()
    return 0


def main() -> int:
    """Serve what the parent asks for."""
    config = read_config()
    try:
        return asyncio.run(serve(config))
    except ImportError as error:
        missing = error.name or str(error)
        report(error=f"{missing} is missing; install it with `pip install pagoda-llm`", code="not_installed")
        return 1


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # native threads need not be waited for
