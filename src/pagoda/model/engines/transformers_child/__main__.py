"""The transformers engine process: ``python -m pagoda.model.engines.transformers_child``.

Configuration arrives as one JSON line on standard input (see ``Transformers.plan``); the address goes out the same way.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from pagoda.core.errors import PagodaError
from pagoda.model.engines.child_http import listen
from pagoda.model.engines.lifeline import read_config, report


async def serve(config: Mapping[str, Any]) -> int:
    """Load the model and serve it on a free loopback port until cancelled."""
    from pagoda.model.engines.transformers_child.host import Host  # noqa: PLC0415  (seconds of imports)
    from pagoda.model.engines.transformers_child.server import build_app, watch  # noqa: PLC0415

    try:
        host = await asyncio.to_thread(Host, config)
        await host.open()
    except PagodaError as error:
        report(error=error.message, code=error.code)
        return 1
    report(url=await listen(build_app(host, config["key"])))
    await watch(host)
    await asyncio.Event().wait()
    return 0


def main() -> int:
    """Serve what the parent asks for."""
    config = read_config()
    try:
        return asyncio.run(serve(config))
    except ImportError as error:
        report(
            error=f"{error.name or error} is missing; install it with `pip install 'pagoda-llm[train]'`",
            code="not_installed",
        )
        return 1


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # the library's threads need not be waited for
