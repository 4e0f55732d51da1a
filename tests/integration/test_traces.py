"""Traces: what an OpenTelemetry collector receives of real requests, and that none waits for it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pagoda.core.settings import Settings
from pagoda.service.traces import NO_TRACES, TRACEPARENT, carried, open_traces
from tests.services import fake_model, free_port, running

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "the prompt that nobody else may read"


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP address, and the bodies that it received."""
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/v1/traces", bodies
    finally:
        await runner.cleanup()


def spans_in(bodies: list[bytes]) -> dict[str, Any]:
    """The received spans by name, each with its attributes as a dictionary."""
    found: dict[str, Any] = {}
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                found |= {span.name: span for span in scope.spans}
    return found


def attributes(span: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        values[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return values


def tracing(settings: Settings, address: str, share: float = 1.0) -> Settings:
    chosen = dataclasses.replace(settings.telemetry, otlp_url=address, trace_share=share)
    return dataclasses.replace(settings, telemetry=chosen)


async def test_a_request_and_its_model_call_are_spans_of_the_clients_trace(settings: Settings) -> None:
    async with collector() as (address, bodies):
        async with running(tracing(settings, address), [fake_model(text="a b c")]) as service:
            status, answer = await service.post(
                "/v1/chat/completions",
                {
                    "messages": [{"role": "user", "content": SECRET}],
                    "max_tokens": 9,
                    "temperature": 0.5,
                    "stop": ["c"],
                },
                **{TRACEPARENT: f"00-{TRACE}-{PARENT}-01"},
            )
            assert status == 200
            async with service.session.get(service.url + "/health") as response:
                assert response.status == 200
        found = spans_in(bodies)
        assert set(found) == {"POST /v1/chat/completions", "chat fake-chat"}, "who watches is not traced"
        request, call = found["POST /v1/chat/completions"], found["chat fake-chat"]
        assert request.trace_id.hex() == call.trace_id.hex() == TRACE
        assert request.parent_span_id.hex() == PARENT
        assert call.parent_span_id == request.span_id
        assert attributes(request)["http.response.status_code"] == 200
        said = attributes(call)
        assert said["gen_ai.operation.name"] == "chat"
        assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "fake-chat"
        assert said["gen_ai.provider.name"] == "fake"
        assert (said["gen_ai.request.max_tokens"], said["gen_ai.request.temperature"]) == (9, 0.5)
        assert said["gen_ai.request.stop_sequences"] == ["c"]
        assert said["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
        assert said["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]
        assert said["gen_ai.response.finish_reasons"] == ["stop"]
        assert not any(SECRET.encode() in body for body in bodies)


async def test_a_call_that_fails_says_why(settings: Settings) -> None:
    async with collector() as (address, bodies):
        broken = fake_model("broken", fault="status", status=500)
        async with running(tracing(settings, address), [broken]) as service:
            status, _ = await service.chat("hello")
            assert status >= 500
        found = spans_in(bodies)
        assert attributes(found["chat broken"])["error.type"]
        assert found["chat broken"].status.code == 2  # ERROR of the protocol
        assert attributes(found["POST /v1/chat/completions"])["http.response.status_code"] == status


async def test_a_client_decides_whether_its_trace_is_kept(settings: Settings) -> None:
    async with collector() as (address, bodies):
        async with running(tracing(settings, address, share=0.0), [fake_model()]) as service:
            body = {"messages": [{"role": "user", "content": "hello"}]}
            assert (await service.post("/v1/chat/completions", body))[0] == 200
            unwanted = {TRACEPARENT: f"00-{TRACE[::-1]}-{PARENT}-00"}
            assert (await service.post("/v1/chat/completions", body, **unwanted))[0] == 200
            wanted = {TRACEPARENT: f"00-{TRACE}-{PARENT}-01"}
            assert (await service.post("/v1/chat/completions", body, **wanted))[0] == 200
        assert {span.trace_id.hex() for span in spans_in(bodies).values()} == {TRACE}


async def test_a_collector_that_is_gone_keeps_nobody(settings: Settings) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1/traces"
    async with running(tracing(settings, address), [fake_model()]) as service:
        assert (await service.chat("hello"))[0] == 200
        began = time.monotonic()
    assert time.monotonic() - began < 30, "the end of the service does not wait for it"


def test_another_process_continues_the_trace() -> None:
    traces = open_traces(f"http://127.0.0.1:{free_port()}/v1/traces", 1.0)
    try:
        assert carried() == {}
        header = (TRACEPARENT.encode(), f"00-{TRACE}-{PARENT}-00".encode())
        with traces.request("POST", "/v1/embeddings", [header]):
            assert carried()[TRACEPARENT].split("-")[1] == TRACE
        assert carried() == {}
    finally:
        traces.close()


def test_without_an_address_nothing_is_traced() -> None:
    assert open_traces("", 1.0) is NO_TRACES
    with NO_TRACES.request("POST", "/v1/embeddings", []) as span, NO_TRACES.traced("more") as inner:
        assert not span
        assert not inner
        assert carried() == {}


async def test_an_agents_work_and_its_tools_are_spans_and_counted(settings: Settings) -> None:
    async with collector() as (address, bodies):
        async with running(tracing(settings, address), [fake_model(text="forty-two")]) as service:
            body = {"task": SECRET, "tools": ["calculator"], "stream": False}
            status, _ = await service.post("/api/v1/agents/run", body)
            assert status == 200
            wanted = {"arguments": {"expression": "1/0"}}
            status, _ = await service.post("/api/v1/tools/calculator", wanted)
            assert status == 200
            async with service.session.get(service.url + "/metrics") as response:
                metrics = await response.text()
        found = spans_in(bodies)
        work, call = found["invoke_agent"], found["chat fake-chat"]
        assert call.trace_id == work.trace_id == found["POST /api/v1/agents/run"].trace_id
        assert call.parent_span_id == work.span_id
        tool = found["execute_tool calculator"]
        assert attributes(tool)["gen_ai.tool.name"] == "calculator"
        assert attributes(tool)["error.type"]
        assert 'pagoda_tool_calls_total{outcome="failed",tool="calculator"}' in metrics
        assert "pagoda_agent_works_total{" in metrics
        assert not any(SECRET.encode() in body for body in bodies)
