"""The further forms of the API over scripted models: messages, responses, rerank, tokens, thinking."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from pagoda.core.settings import Settings
from tests.services import Service, fake_model, running

THOUGHT = "<think>\nLet me see.\n</think>\n\nIt is four."
MODELS = (
    fake_model(
        rules=[
            {"contains": "ponder", "text": THOUGHT},
            {"contains": "endless", "text": "<think> on and on and on"},
            {"contains": "good json", "text": '{"age": 7}'},
            {"contains": "bad json", "text": '{"age": "seven"}'},
            {"contains": "late", "first_seconds": 0.3, "text": "at last"},
            {
                "contains": "cut here",
                "fault": "cut",
                "fault_at": 2,
                "text": "one two three four",
                "token_seconds": 0.05,
            },
            {"contains": "status 429", "fault": "status", "status": 429},
        ],
        context=64,
    ),
    fake_model("stubborn", stubborn=True),
    fake_model("fake-embed", task="embedding"),
)
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    server = dataclasses.replace(module_settings.server, keepalive_seconds=0.05, max_body_bytes=20_000)
    async with running(dataclasses.replace(module_settings, server=server), MODELS) as running_service:
        yield running_service


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def raw(service: Service, path: str, body: Any) -> str:
    async with service.session.post(service.url + path, json={**body, "stream": True}) as response:
        assert response.status == 200, await response.text()
        return await response.text()


async def events(service: Service, path: str, body: Any) -> list[dict[str, Any]]:
    """The typed frames of a stream; the name of each is its type."""
    found = []
    for block in (await raw(service, path, body)).split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            found.append(orjson.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found


# -- messages -------------------------------------------------------------------------------------------------------


async def test_a_message_has_content_reason_and_usage(service: Service) -> None:
    body = {
        "messages": user("one two three"),
        "max_tokens": 50,
        "temperature": 0,
        "system": [{"type": "text", "text": "Be"}],
    }
    status, answer = await service.post("/v1/messages", body)
    assert status == 200
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "fake-chat")
    assert answer["content"] == [{"type": "text", "text": "fake Be one two three"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["usage"] == {
        "input_tokens": 4,
        "output_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    _, counted = await service.post("/v1/messages/count_tokens", {k: body[k] for k in ("messages", "system")})
    assert counted == {"input_tokens": 4}


async def test_a_message_says_why_it_ended(service: Service) -> None:
    body = {"messages": user("a b c d"), "max_tokens": 2, "temperature": 0}
    assert (await service.post("/v1/messages", body))[1]["stop_reason"] == "max_tokens"
    body |= {"max_tokens": 9, "stop_sequences": ["zzz", " c"]}
    _, answer = await service.post("/v1/messages", body)
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", " c")
    assert answer["content"][0]["text"] == "fake a b"
    ending = next(each for each in await events(service, "/v1/messages", body) if each["type"] == "message_delta")
    assert ending["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": " c"}


async def test_a_streamed_message_has_anthropics_events_in_order(service: Service) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = {"messages": user("ponder"), "max_tokens": 50, "thinking": thinking}
    found = await events(service, "/v1/messages", body)
    kinds = [event["type"] for event in found]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert found[0]["message"]["content"] == []
    assert "budget_tokens" in found[0]["message"]["warnings"][0]
    starts = [event for event in found if event["type"] == "content_block_start"]
    assert [(event["index"], event["content_block"]["type"]) for event in starts] == [(0, "thinking"), (1, "text")]
    assert kinds.count("content_block_stop") == 2
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == "Let me see."
    assert "".join(delta.get("text", "") for delta in deltas) == "It is four."
    usage = found[-2]["usage"]
    assert usage["input_tokens"] == 1
    assert 0 < usage["output_tokens_details"]["thinking_tokens"] < usage["output_tokens"]


async def test_thinking_is_shown_only_to_those_who_ask(service: Service) -> None:
    body = {"messages": user("ponder"), "max_tokens": 50}
    for extra in ({}, {"thinking": {"type": "disabled"}}, {"thinking": {"type": "adaptive", "display": "omitted"}}):
        _, answer = await service.post("/v1/messages", body | extra)
        assert answer["content"] == [{"type": "text", "text": "It is four."}]
    _, answer = await service.post("/v1/messages", body | {"thinking": {"type": "adaptive"}})
    assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
    again = [*user("ponder"), {"role": "assistant", "content": answer["content"]}, *user("hello")]
    _, next_answer = await service.post("/v1/messages", {"messages": again, "max_tokens": 9, "temperature": 0})
    assert "see" not in next_answer["content"][0]["text"]


async def test_silence_is_filled_with_pings(service: Service) -> None:
    text = await raw(service, "/v1/messages", {"messages": user("late"), "max_tokens": 9})
    assert 'event: ping\ndata: {"type":"ping"}\n\n' in text


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"tools": [{"type": "web_search", "name": "w"}]}, "tools.0"),
        ({"tool_choice": {"type": "any"}}, "tool_choice needs tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "type image"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}]},
            "belongs to the role assistant",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "txt": "a"}]}]}, "messages.0.content.0.txt"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_token": 3}, "no parameter max_token"),
        ({"output_config": {"effort": "high"}}, "output_config.effort is not supported"),
        ({"container": "x"}, "container is not supported"),
        ({"model": "nobody"}, "nobody"),
        (
            {"model": "stubborn", "messages": [*user("a"), {"role": "assistant", "content": "b"}]},
            "cannot continue",
        ),
    ],
)
async def test_messages_refuse_by_name_in_anthropics_shape(service: Service, change: Any, names: str) -> None:
    status, answer = await service.post("/v1/messages", {"messages": user("a"), "max_tokens": 5, **change})
    assert status in (400, 404)
    assert answer["type"] == "error"
    assert answer["error"]["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert names in answer["error"]["message"]


async def test_every_refusal_of_messages_has_anthropics_shape(service: Service) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        async with service.session.post(service.url + path, data=b"x" * 30_000) as response:
            assert response.status == 413
            assert (await response.json())["error"]["type"] == "request_too_large"
    body = {"messages": user("a"), "max_tokens": 5}
    status, answer = await service.post("/v1/messages", body, Origin="http://evil.example")
    assert (status, answer["error"]["type"]) == (403, "permission_error")
    status, answer = await service.post("/v1/messages", body | {"messages": user("status 429")})
    assert (status, answer["error"]["type"]) == (429, "rate_limit_error")


async def test_a_failure_after_the_beginning_is_an_error_event(service: Service) -> None:
    found = await events(service, "/v1/messages", {"messages": user("cut here"), "max_tokens": 9})
    assert found[0]["type"] == "message_start"
    assert found[-1]["type"] == "error"
    assert found[-1]["error"]["type"] == "overloaded_error"
    assert "ask again" in found[-1]["error"]["message"]


async def test_models_are_listed_in_anthropics_form_for_its_clients(service: Service) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    async with service.session.get(service.url + "/v1/models", headers=headers) as response:
        listed = await response.json()
    assert listed["has_more"] is False
    assert {"fake-chat", "fake-embed"} <= {model["id"] for model in listed["data"]}
    assert {model["type"] for model in listed["data"]} == {"model"}


# -- responses ------------------------------------------------------------------------------------------------------


async def test_a_response_has_output_and_usage(service: Service) -> None:
    body = {"input": "one two", "instructions": "Be", "temperature": 0, "metadata": {"a": "b"}, "store": False}
    status, answer = await service.post("/v1/responses", body)
    assert status == 200
    assert (answer["object"], answer["status"], answer["store"]) == ("response", "completed", False)
    assert answer["metadata"] == {"a": "b"}
    assert [item["type"] for item in answer["output"]] == ["message"]
    assert answer["output"][0]["content"][0]["text"] == "fake Be one two"
    assert answer["usage"]["input_tokens"] == 3
    assert answer["usage"]["total_tokens"] == 7


async def test_a_response_may_be_asked_with_the_output_of_the_last_one(service: Service) -> None:
    _, first = await service.post("/v1/responses", {"input": "ponder"})
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    assert first["output"][0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    history = [*first["output"], {"role": "user", "content": [{"type": "input_text", "text": "more"}]}]
    _, second = await service.post("/v1/responses", {"input": history, "temperature": 0})
    assert second["output"][-1]["content"][0]["text"] == "fake It is four. more"
    _, plain = await service.post("/v1/responses", {"input": "ponder", "include_reasoning": False})
    assert [item["type"] for item in plain["output"]] == ["message"]
    assert plain["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


async def test_a_streamed_response_has_typed_events_in_order(service: Service) -> None:
    found = await events(service, "/v1/responses", {"input": "ponder", "include": ["message.output_text.logprobs"]})
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    seen: list[str] = []
    for event in found:
        if event["type"] not in seen[-1:]:
            seen.append(event["type"])
    item = ["response.output_item.added", "response.content_part.added"]
    done = ["response.content_part.done", "response.output_item.done"]
    assert seen == [
        "response.created",
        "response.in_progress",
        *item,
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        *done,
        *item,
        "response.output_text.delta",
        "response.output_text.done",
        *done,
        "response.completed",
    ]
    final = found[-1]["response"]
    assert [part["text"] for item in final["output"] for part in item["content"]] == ["Let me see.", "It is four."]
    assert final["usage"]["output_tokens"] > 0
    told = [event for event in found if event["type"] == "response.output_text.delta"]
    assert "".join(event["delta"] for event in told) == "It is four."
    tokens = [entry["token"] for event in told for entry in event["logprobs"]]
    assert tokens == [" is", " four."]  # the first token begins with white space that belongs to the thinking
    assert "[DONE]" not in await raw(service, "/v1/responses", {"input": "one"})


async def test_every_end_of_a_response_has_usage(service: Service) -> None:
    ends = {
        "response.completed": {"input": "a b c"},
        "response.incomplete": {"input": "a b c d e", "max_output_tokens": 2},
        "response.failed": {"input": "cut here"},
    }
    for kind, body in ends.items():
        last = (await events(service, "/v1/responses", body))[-1]
        assert last["type"] == kind
        assert last["response"]["usage"]["output_tokens"] >= 2
        assert last["response"]["status"] == kind.removeprefix("response.")
    _, whole = await service.post("/v1/responses", ends["response.incomplete"])
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    failed = (await events(service, "/v1/responses", ends["response.failed"]))[-1]["response"]
    assert failed["error"]["code"] == "server_error"
    endless = {"input": "endless", "max_output_tokens": 3}
    _, whole = await service.post("/v1/responses", endless)
    streamed = (await events(service, "/v1/responses", endless))[-1]["response"]
    for thinking in (whole, streamed):
        assert [item["status"] for item in thinking["output"]] == ["incomplete", "incomplete"]


async def test_a_response_keeps_its_schema(service: Service) -> None:
    form = {"format": {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True}}
    _, answer = await service.post("/v1/responses", {"input": "good json", "text": form})
    assert orjson.loads(answer["output"][0]["content"][0]["text"]) == {"age": 7}
    assert answer["text"] == form
    status, _ = await service.post("/v1/responses", {"input": "bad json", "text": form})
    assert status == 502
    last = (await events(service, "/v1/responses", {"input": "bad json", "text": form}))[-1]
    assert last["type"] == "response.failed"


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "x"}}, "prompt", "unsupported_parameter"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "unsupported_parameter"),
        ({"tools": [{"type": "web_search", "name": "w"}]}, "tools.0.type", "invalid_value"),
        ({"store": True}, "store", "invalid_value"),
        ({"background": True}, "background", "invalid_value"),
        ({"truncation": "auto"}, "truncation", "invalid_value"),
        ({"input": [{"type": "computer_call"}]}, "input.0", "unsupported_parameter"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id", "missing_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input.0.content.0",
            "unsupported_parameter",
        ),
        ({"input": []}, "input", "invalid_value"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
    ],
)
async def test_responses_refuse_by_name(service: Service, change: Any, param: str, code: str) -> None:
    status, answer = await service.post("/v1/responses", {"input": "a", **change})
    assert status == 400
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, code)


# -- thinking in chat -----------------------------------------------------------------------------------------------


async def test_thinking_is_a_field_of_its_own_and_can_be_switched(service: Service) -> None:
    _, answer = await service.chat("ponder")
    assert answer["choices"][0]["message"]["reasoning_content"] == "Let me see."
    assert answer["choices"][0]["message"]["content"] == "It is four."
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    _, hidden = await service.chat("ponder", include_reasoning=False)
    assert "reasoning_content" not in hidden["choices"][0]["message"]
    assert hidden["choices"][0]["message"]["content"] == "It is four."
    _, inline = await service.chat("ponder", reasoning_format="none")
    assert inline["choices"][0]["message"]["content"] == THOUGHT
    frames = await service.stream("/v1/chat/completions", {"messages": user("ponder")})
    deltas = [frame["choices"][0]["delta"] for frame in frames[:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Let me see."
    assert "".join(delta.get("content", "") for delta in deltas) == "It is four."
    status, both = await service.chat("ponder", reasoning_format="none", include_reasoning=False)
    assert status == 400
    assert "reasoning_format" in both["error"]["message"]


async def test_chat_names_the_stop_sequence(service: Service) -> None:
    _, answer = await service.chat("a b c", temperature=0, stop=["x", " b"])
    assert answer["choices"][0]["stop_reason"] == " b"
    frames = await service.stream("/v1/chat/completions", {"messages": user("a b c"), "temperature": 0, "stop": " b"})
    assert frames[-2]["choices"][0]["stop_reason"] == " b"


# -- rerank and tokens ----------------------------------------------------------------------------------------------


async def test_rerank_gives_the_best_first(service: Service) -> None:
    documents = ["some", {"text": "query"}, "other"]
    status, answer = await service.post(
        "/v1/rerank", {"query": "query", "documents": documents, "return_documents": True}
    )
    assert status == 200
    scores = [row["relevance_score"] for row in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["results"][0] == {"index": 1, "relevance_score": pytest.approx(1), "document": {"text": "query"}}
    assert answer["usage"]["total_tokens"] == 4
    _, best = await service.post("/v1/rerank", {"query": "query", "documents": documents, "top_n": 1})
    assert [row["index"] for row in best["results"]] == [1]
    assert "document" not in best["results"][0]
    status, chat = await service.post("/v1/rerank", {"model": "fake-chat", "query": "q", "documents": ["d"]})
    assert (status, chat["error"]["param"]) == (400, "model")
    status, wrong = await service.post("/v1/rerank", {"query": "q", "documents": ["d"], "max_chunks_per_doc": 1})
    assert wrong["error"]["param"] == "max_chunks_per_doc"
    status, wrong = await service.post("/v1/rerank", {"query": "q", "documents": [{"txt": "d"}]})
    assert wrong["error"]["param"] == "documents.0.txt"


async def test_tokens_and_back(service: Service) -> None:
    _, tokens = await service.post("/tokenize", {"prompt": "hello big world", "return_token_strs": True})
    assert tokens["count"] == len(tokens["tokens"]) == 3
    assert tokens["max_model_len"] == 64
    assert tokens["token_strs"] == ["hello", " big", " world"]
    _, text = await service.post("/detokenize", {"tokens": tokens["tokens"]})
    assert text == {"prompt": "hello big world"}
    _, chat = await service.post("/tokenize", {"messages": user("hello big world")})
    assert (chat["tokens"], chat["token_strs"]) == (tokens["tokens"], None)
    status, both = await service.post("/tokenize", {"prompt": "a", "text": "a"})
    assert (status, "one of prompt" in both["error"]["message"]) == (400, True)
