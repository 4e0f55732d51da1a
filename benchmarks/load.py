"""Load with a fault in its middle: what becomes of every request.

Eight clients stream one answer after another. Each answer is compared with the undisturbed one: a token that is lost or
told twice shows as ``differing``. ``lost``: no answer and no clear error. ``recovered_s``: from the fault to the end of
the first answer to a request that began after it; ``back_s``: from the fault's end until all is as before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp

from tests.pooled import told
from tests.services import Service

Act = Callable[[], Awaitable[None]]


@dataclasses.dataclass
class Row:
    """What became of the requests of one scenario."""

    fault: str
    sent: int = 0
    answered: int = 0
    clear_error: int = 0
    lost: int = 0
    differing: int = 0
    duplicated: int | None = None
    """Requests that reached an engine more often than they were sent; only where nothing is to be tried again."""
    recovered_s: float | None = None
    back_s: float | None = None


async def load(service: Service, row: Row, body: Mapping[str, Any], seconds: float, fault: Act, mend: Act) -> float:
    """Load for a time; the fault comes after a quarter and goes after three, or later when it takes longer to make.

    Gives when it went.
    """
    whole = told(await service.stream("/v1/chat/completions", body))
    over = asyncio.Event()
    struck: list[float] = []

    async def client(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            row.sent += 1
            came = time.monotonic()
            try:
                found = told(await service.stream("/v1/chat/completions", {**body, "seed": 1000 * number + turn}))
            except AssertionError:  # refused with a status and a body, which is clear
                row.clear_error += 1
                await asyncio.sleep(0.05)
                continue
            except aiohttp.ClientConnectorError:  # refused before anything was taken
                row.clear_error += 1
                await asyncio.sleep(0.05)
                continue
            except aiohttp.ClientError:
                row.lost += 1
                continue
            if found["error"]:
                row.clear_error += 1
            elif found["finish"] is None:
                row.lost += 1
            else:
                row.answered += 1
                row.differing += (found["text"], found["usage"]) != (whole["text"], whole["usage"])
                if struck and came >= struck[0] and row.recovered_s is None:
                    row.recovered_s = round(time.monotonic() - struck[0], 2)

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    await asyncio.sleep(seconds / 4)
    struck.append(time.monotonic())
    await fault()
    await asyncio.sleep(seconds / 2)
    mended = time.monotonic()
    await mend()
    await asyncio.sleep(seconds / 4)
    over.set()
    await asyncio.gather(*clients)
    return mended


def question(model: str, **fields: Any) -> dict[str, Any]:
    """A greedy question whose answer is known."""
    messages = [{"role": "user", "content": "What is gravity? One sentence."}]
    return {"model": model, "messages": messages, "temperature": 0, "stream_options": {"include_usage": True}, **fields}


def show(rows: Sequence[Row]) -> None:
    """One table of all."""
    names = [field.name for field in dataclasses.fields(Row)]
    print(f"{names[0]:28}" + "".join(f"{name:>13}" for name in names[1:]))
    for row in rows:
        cells = ["-" if value is None else value for value in dataclasses.astuple(row)]
        print(f"{cells[0]:28}" + "".join(f"{cell:>13}" for cell in cells[1:]), flush=True)
