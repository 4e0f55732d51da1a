"""The HTTP API over scripted models: OpenAI's forms, refusals by name, streams, the perimeter."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.settings import Settings
from tests.services import Service, eventually, fake_model, running

USER = [{"role": "user", "content": "hello big world"}]
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def form(schema: Any = SCHEMA) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}


MODELS = (
    fake_model(
        rules=[
            {"contains": "slow", "token_seconds": 0.02, "text": "word " * 200},
            {"contains": "late", "first_seconds": 0.3, "text": "at last"},
            {"contains": "good json", "text": '{"age": 7}'},
            {"contains": "bad json", "text": '{"age": "seven"}'},
            {"contains": "cut here", "fault": "cut", "fault_at": 2, "text": "one two three four"},
            {"contains": "garbage here", "fault": "garbage", "fault_at": 2, "text": "one two three four"},
            {"contains": "status 500", "fault": "status", "status": 500},
            {"contains": "status 429", "fault": "status", "status": 429},
            {"contains": "status 400", "fault": "status", "status": 400},
        ],
        context=64,
    ),
    fake_model("fake-embed", task="embedding"),
    fake_model("fake-text", task="completion"),
)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    server = dataclasses.replace(module_settings.server, keepalive_seconds=0.05, max_body_bytes=20_000)
    async with running(dataclasses.replace(module_settings, server=server), MODELS) as running_service:
        yield running_service


async def test_chat_answers_in_openai_form_and_says_that_it_is_fake(service: Service) -> None:
    status, answer = await service.chat("hello big world", temperature=0)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["system_fingerprint"] == "fake"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "fake hello big world", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_stream_has_role_text_finish_usage_and_done(service: Service) -> None:
    body = {"messages": USER, "temperature": 0, "stream_options": {"include_usage": True}, "n": 2}
    frames = await service.stream("/v1/chat/completions", body)
    assert frames[-1] == "[DONE]"
    assert frames[-2]["usage"]["completion_tokens"] == 8
    assert frames[-2]["choices"] == []
    assert all(frame["usage"] is None for frame in frames[:-2])
    assert len({frame["id"] for frame in frames[:-1]}) == 1
    assert [frame["choices"][0]["delta"].get("role") for frame in frames[:2]] == ["assistant", "assistant"]
    for index in (0, 1):
        choices = [frame["choices"][0] for frame in frames[:-2] if frame["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in choices) == "fake hello big world"
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]


async def test_without_include_usage_no_frame_mentions_it(service: Service) -> None:
    frames = await service.stream("/v1/chat/completions", {"messages": USER})
    assert all("usage" not in frame for frame in frames[:-1])


async def test_stop_length_seed_and_logprobs_reach_the_answer(service: Service) -> None:
    _, answer = await service.chat("a b c d e", temperature=0, max_tokens=3, logprobs=True, top_logprobs=2)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["fake", " a", " b"]
    assert [len(entry["top_logprobs"]) for entry in choice["logprobs"]["content"]] == [2, 2, 2]
    _, stopped = await service.chat("a b c d e", temperature=0, stop=" c")
    assert stopped["choices"][0]["message"]["content"] == "fake a b"
    texts = [
        (await service.chat("a b c d e f g", seed=seed))[1]["choices"][0]["message"]["content"] for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_messages_may_come_in_parts_and_under_the_developer_role(service: Service) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}]
    status, answer = await service.post("/v1/chat/completions", {"messages": messages, "temperature": 0})
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "fake be kind one two"


async def test_a_valid_schema_answer_passes_and_an_invalid_one_is_retried_once_then_502(service: Service) -> None:
    status, answer = await service.chat("good json", response_format=form())
    assert status == 200
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"age": 7}
    before = await metric(service, "llm_time_to_first_token_seconds_count")
    status, answer = await service.chat("bad json", response_format=form())
    assert status == 502
    assert answer["error"]["code"] == "schema_violation"
    assert await metric(service, "llm_time_to_first_token_seconds_count") == before + 2


async def test_a_streamed_schema_violation_is_an_error_frame_instead_of_done(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": "bad json"}], "response_format": form()}
    frames = await service.stream("/v1/chat/completions", body)
    assert frames[-1]["error"]["code"] == "schema_violation"
    good = await service.stream(
        "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": "good json"}]}
    )
    assert good[-1] == "[DONE]"


async def test_an_answer_cut_by_length_is_not_judged(service: Service) -> None:
    status, answer = await service.chat("bad json", response_format=form(), max_tokens=1)
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_json_object_demands_an_object(service: Service) -> None:
    assert (await service.chat("good json", response_format={"type": "json_object"}))[0] == 200
    status, answer = await service.chat("slow", response_format={"type": "json_object"}, stop="word")
    assert (status, answer["error"]["code"]) == (502, "schema_violation")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokenss": 3}, "max_tokenss", "unknown_parameter"),
        ({"tools": []}, "tools", "invalid_value"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_parameter"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"temperature": 99}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": -5}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1e30}, "max_tokens", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 10**9}, "n", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_value"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_value"),
        ({"top_logprobs": 3}, "body", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"stop": [""]}, "stop.0", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": form({"type": "bogus"})}, "response_format", "invalid_json_schema"),
        ({"continue_final_message": True}, "body", "invalid_value"),
        ({"model": "fake-embed"}, "model", "invalid_request"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str, code: str
) -> None:
    status, answer = await service.post("/v1/chat/completions", {"messages": USER, **fields})
    assert status == 400, answer
    assert answer["error"]["code"] == code, answer
    assert (answer["error"]["param"] or "body").startswith(param.split(".", maxsplit=1)[0]), answer
    if code in ("unknown_parameter", "unsupported_parameter"):
        assert answer["error"]["param"] == param


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"messages": NaN}',
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
async def test_malformed_bodies_are_400_never_500(service: Service, raw: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/generate", "/api/v1/chat"):
        async with service.session.post(service.url + path, data=raw, headers=headers) as response:
            assert response.status == 400, await response.text()
            assert set((await response.json())["error"]) == {"message", "type", "param", "code"}


async def test_an_unknown_model_is_404_naming_those_there_are(service: Service) -> None:
    status, answer = await service.chat("x", model="gpt-9")
    assert status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert "fake-chat" in answer["error"]["message"]


async def test_an_alias_answers_for_its_model(settings: Settings) -> None:
    models = dataclasses.replace(settings.models, aliases={"gpt-4o-mini": "fake-chat"})
    async with running(dataclasses.replace(settings, models=models), MODELS) as service:
        status, answer = await service.chat("x", model="gpt-4o-mini")
        assert (status, answer["model"]) == (200, "fake-chat")


async def test_a_prompt_over_the_context_is_400_with_both_numbers(service: Service) -> None:
    status, answer = await service.chat("word " * 99 + "word")
    assert status == 400
    assert answer["error"]["code"] == "context_length_exceeded"
    assert "100" in answer["error"]["message"]
    assert "64" in answer["error"]["message"]


async def test_a_body_over_the_limit_is_413_announced_or_not(service: Service) -> None:
    status, answer = await service.chat("x" * 30_000)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 1000

    async with service.session.post(service.url + "/v1/chat/completions", data=chunks()) as response:
        assert response.status == 413


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [("status 500", 503, "model_unavailable"), ("status 429", 429, "overloaded"), ("status 400", 400, "rejected")],
)
async def test_an_engines_refusal_has_the_right_status(service: Service, text: str, status: int, code: str) -> None:
    got, answer = await service.chat(text)
    assert (got, answer["error"]["code"]) == (status, code)


@pytest.mark.parametrize("text", ["cut here", "garbage here"])
async def test_an_engine_that_fails_in_mid_answer_ends_the_request_with_a_clear_error(
    service: Service, text: str
) -> None:
    status, answer = await service.chat(text)
    assert status == 503
    assert answer["error"]["message"]
    frames = await service.stream("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]})
    assert "error" in frames[-1]
    assert (await service.chat("still fine"))[0] == 200


async def test_slow_streams_get_keepalive_comments(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": "late"}], "stream": True}
    async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
        text = await response.text()
    assert ": keep-alive\n\n" in text
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_engine_within_a_second(service: Service, stream: bool) -> None:
    engine = await service.platform._service.supervisor.load(service.platform.entry("fake-chat", "chat"))  # type: ignore[union-attr]
    body = {"messages": [{"role": "user", "content": "slow"}], "stream": stream}
    request = asyncio.create_task(
        service.post("/v1/chat/completions", body) if not stream else _first_bytes(service, body)
    )
    while (await engine.health()).running == 0:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    for _ in range(100):
        if (await engine.health()).running == 0:
            break
        await asyncio.sleep(0.01)
    assert (await engine.health()).running == 0
    await eventually(lambda: b'status="cancelled"' in service.platform.telemetry.expose())
    assert await metric(service, "llm_active_requests") == 0


async def _first_bytes(service: Service, body: Any) -> None:
    async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
        async for _ in response.content.iter_any():
            pass


async def test_a_deadline_in_the_header_ends_the_request(service: Service) -> None:
    status, answer = await service.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "slow"}]}, **{"X-Request-Timeout": "0.2"}
    )
    assert (status, answer["error"]["code"]) == (504, "timeout")
    for wrong in ("soon", "-1", "nan"):
        status, answer = await service.post("/v1/chat/completions", {"messages": USER}, **{"X-Request-Timeout": wrong})
        assert (status, answer["error"]["param"]) == (400, "X-Request-Timeout")


async def test_completions_of_several_prompts_in_order_with_echo(service: Service) -> None:
    body = {"prompt": ["a b", "c d"], "temperature": 0, "n": 2, "echo": True, "logprobs": None}
    status, answer = await service.post("/v1/completions", body)
    assert status == 200
    assert [choice["text"] for choice in answer["choices"]] == ["a bfake a b"] * 2 + ["c dfake c d"] * 2
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    frames = await service.stream("/v1/completions", {**body, "stream_options": {"include_usage": True}})
    texts = [""] * 4
    for frame in frames[:-2]:
        texts[frame["choices"][0]["index"]] += frame["choices"][0]["text"]
    assert texts == [choice["text"] for choice in answer["choices"]]
    assert frames[-2]["usage"] == answer["usage"]


async def test_completion_logprobs_come_in_the_older_form(service: Service) -> None:
    status, answer = await service.post("/v1/completions", {"prompt": "a b", "temperature": 0, "logprobs": 2})
    logprobs = answer["choices"][0]["logprobs"]
    assert status == 200
    assert logprobs["tokens"] == ["fake", " a", " b"]
    assert logprobs["text_offset"] == [0, 4, 6]
    assert [len(rivals) for rivals in logprobs["top_logprobs"]] == [2, 2, 2]


@pytest.mark.parametrize(
    "fields",
    [
        {"best_of": 3},
        {"suffix": "x"},
        {"echo": True, "logprobs": 1},
        {"prompt": []},
        {"prompt": [-1]},
        {"prompt": [1, "a"]},
        {"prompt": ["x"] * 200},
    ],
)
async def test_completions_refuse_what_they_cannot(service: Service, fields: dict[str, Any]) -> None:
    status, answer = await service.post("/v1/completions", {"prompt": "x", **fields})
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_embeddings_take_every_form_of_input(service: Service) -> None:
    import base64
    from array import array

    forms: list[Any] = ["one", ["one", "two"], [1, 2, 3], [[1, 2], [3]]]
    for form_, rows in zip(forms, (1, 2, 1, 2), strict=True):
        status, answer = await service.post("/v1/embeddings", {"input": form_})
        assert status == 200
        assert [row["index"] for row in answer["data"]] == list(range(rows))
        status, packed = await service.post("/v1/embeddings", {"input": form_, "encoding_format": "base64"})
        unpacked = [array("f", base64.b64decode(row["embedding"])).tolist() for row in packed["data"]]
        assert unpacked == [row["embedding"] for row in answer["data"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"input": ""},
        {"input": []},
        {"input": ["a", ""]},
        {"input": [[]]},
        {"dimensions": 3},
        {"model": "fake-chat"},
        {"input": {"a": 1}},
        {"encoding_format": "hex"},
    ],
)
async def test_embeddings_refuse_what_they_cannot(service: Service, fields: dict[str, Any]) -> None:
    status, answer = await service.post("/v1/embeddings", {"input": "x", **fields})
    assert status == 400, answer
    assert next(iter(fields)) in (answer["error"]["param"] or ""), answer


async def test_the_service_api_answers_in_its_short_forms(service: Service) -> None:
    assert await service.post("/generate", {"prompt": "a b", "max_length": 2, "temperature": 0}) == (
        200,
        {"response": "fake a", "tokens_used": 2},
    )
    assert await service.post("/api/v1/generation", {"prompt": "a b", "max_tokens": 2, "temperature": 0}) == (
        200,
        {"response": "fake a", "tokens_used": 2},
    )
    assert await service.post("/api/v1/chat", {"message": "a b", "max_tokens": 9, "temperature": 0}) == (
        200,
        {"response": "fake a b", "tokens_used": 3},
    )
    status, answer = await service.post("/api/v1/embedding", {"texts": ["a", "b"]})
    assert status == 200
    assert (len(answer["embeddings"]), answer["dimensions"], answer["tokens_used"]) == (2, 8, 2)
    assert (await service.post("/generate", {"prompt": "a", "model": "fake-text", "temperature": 0}))[1][
        "response"
    ] == "fake a"
    for path, body in (("/generate", {"prompt": ""}), ("/api/v1/chat", {}), ("/api/v1/embedding", {"texts": []})):
        assert (await service.post(path, body))[0] == 400


async def test_health_readiness_models_and_metrics(service: Service) -> None:
    before = await metric(service, "nlp_requests_total", endpoint="/v1/chat/completions", status="200")
    await service.chat("x")
    async with service.session.get(service.url + "/health") as response:
        health = await response.json()
    assert health["status"] == "ok"
    assert "fake-chat" in health["models_loaded"]
    async with service.session.get(service.url + "/v1/models") as response:
        models = {model["id"]: model["pagoda"] for model in (await response.json())["data"]}
    assert models["fake-chat"]["state"] == "ready"
    assert models["smollm2-135m-instruct"]["state"] == "absent"
    assert models["fake-chat"]["default"]
    async with service.session.get(service.url + "/v1/models/fake-chat") as response:
        assert (await response.json())["id"] == "fake-chat"
    async with service.session.get(service.url + "/v1/models/none/at-all") as response:
        assert response.status == 404
    assert await metric(service, "nlp_requests_total", endpoint="/v1/chat/completions", status="200") == before + 1
    service.platform.gate.asked.set()
    try:
        async with service.session.get(service.url + "/ready") as response:
            assert response.status == 503
    finally:
        service.platform.gate.asked.clear()


async def test_every_answer_carries_a_request_id_and_keeps_the_clients(service: Service) -> None:
    async with service.session.get(service.url + "/health") as response:
        assert response.headers["X-Request-Id"].startswith("req-")
    async with service.session.get(service.url + "/nowhere", headers={"X-Request-Id": "mine-1"}) as response:
        assert (response.status, response.headers["X-Request-Id"]) == (404, "mine-1")
    async with service.session.get(service.url + "/health", headers={"X-Request-Id": "x" * 500}) as response:
        assert response.headers["X-Request-Id"].startswith("req-")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"X-Real-IP": "10.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_without_keys_only_this_machine_is_answered(service: Service, headers: dict[str, str]) -> None:
    for path in ("/health", "/v1/models", "/metrics"):
        async with service.session.get(service.url + path, headers=headers) as response:
            assert response.status == 403
            assert (await response.json())["error"]["type"] == "permission_error"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "app.localhost"])
async def test_loopback_names_and_the_services_own_page_are_answered(service: Service, name: str) -> None:
    port = service.url.rsplit(":", 1)[1]
    headers = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
    async with service.session.get(service.url + "/health", headers=headers) as response:
        assert response.status == 200


async def test_cors_is_closed_unless_an_origin_is_allowed(settings: Settings) -> None:
    server = dataclasses.replace(settings.server, cors_origins=("http://app.example",))
    async with running(dataclasses.replace(settings, server=server), MODELS) as service:
        headers = {"Origin": "http://app.example", "Access-Control-Request-Method": "POST"}
        async with service.session.options(service.url + "/v1/chat/completions", headers=headers) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == "http://app.example"
        async with service.session.get(service.url + "/health", headers={"Origin": "http://other.example"}) as response:
            assert response.status == 403


async def test_the_internal_door_is_shut_without_its_key(service: Service) -> None:
    for headers in ({}, {"X-Pagoda-Internal-Key": "guess"}, {"X-Pagoda-Internal-Key": "schlüssel"}):
        async with service.session.get(service.url + "/internal/v1/states", headers=headers) as response:
            assert response.status == 404


async def test_a_sub_path_is_served(settings: Settings) -> None:
    server = dataclasses.replace(settings.server, root_path="/pagoda")
    async with running(dataclasses.replace(settings, server=server), MODELS) as service:
        for path in ("/pagoda/health", "/health"):
            async with service.session.get(service.url + path) as response:
                assert response.status == 200
        status, _ = await service.post("/pagoda/v1/chat/completions", {"messages": USER})
        assert status == 200


async def test_the_openapi_document_speaks_of_our_errors_only(service: Service) -> None:
    async with service.session.get(service.url + "/openapi.json") as response:
        document = await response.json()
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    assert '"422"' not in text
    assert not any(path.startswith("/internal") for path in document["paths"])
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/generate", "/api/v1/chat"):
        operation = document["paths"][path]["post"]
        assert {"200", "400", "404", "413", "503"} <= set(operation["responses"])


async def metric(service: Service, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = 0.0
    for family in service.platform.telemetry.registry.collect():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                found += sample.value
    return found
