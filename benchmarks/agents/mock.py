"""The mock model: a server of OpenAI's API that calls the calculator in every turn but the last. Prints its address."""

from __future__ import annotations

import json
import sys
from typing import Any

from aiohttp import web

TURNS = int(sys.argv[1])


def message_of(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A call that differs in every turn, or the end."""
    turn = sum(message["role"] == "tool" for message in messages)
    turn = turn or sum("Observation" in str(message["content"]) for message in messages)
    if turn >= TURNS:
        return {"role": "assistant", "content": "Counted."}
    function = {"name": "calculator", "arguments": json.dumps({"expression": f"{turn}+1"})}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"c{turn}", "type": "function", "function": function}],
    }


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    message = message_of(body["messages"])
    if message["content"] and any(t["function"]["name"] == "final_answer" for t in body.get("tools") or ()):
        function = {"name": "final_answer", "arguments": json.dumps({"answer": "Counted."})}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "f", "type": "function", "function": function}],
        }
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    head = {"id": "m", "created": 0, "model": "mock"}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    calls = [{"index": 0, **call} for call in message.get("tool_calls", ())]
    delta = {"role": "assistant", "content": message["content"], **({"tool_calls": calls} if calls else {})}
    frames: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {"choices": [], "usage": usage},
    ]
    told = [json.dumps({**head, "object": "chat.completion.chunk", **frame}) for frame in frames]
    await response.write("".join(f"data: {each}\n\n" for each in [*told, "[DONE]"]).encode())
    return response


async def models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "mock", "object": "model"}]})


async def announce(app: web.Application) -> None:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)


def main() -> None:
    import asyncio

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(announce(app))
    loop.run_forever()


if __name__ == "__main__":
    main()
