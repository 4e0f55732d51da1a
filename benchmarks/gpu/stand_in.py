"""The fake engine at a fixed port, in the place of vLLM's server: ``python -m benchmarks.gpu.stand_in PORT SCRIPT``."""

from __future__ import annotations

import json
import sys

from aiohttp import web

from pagoda.model.engines.fake_child import build_app


@web.middleware
async def open_to_all(request: web.Request, handler: object) -> web.StreamResponse:
    """A bare server asks for no key; the fake engine's application does."""
    keyed = request.clone(headers={**request.headers, "Authorization": "Bearer stand-in"})
    response: web.StreamResponse = await handler(keyed)  # type: ignore[operator]
    return response


if __name__ == "__main__":
    app = build_app(json.loads(sys.argv[2]), "stand-in")
    app.middlewares.insert(0, open_to_all)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, handler_cancellation=True)
