"""The official `anthropic` client: against the real packaged model, and against a scripted one that thinks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from pagoda.core.settings import Settings
from tests.services import fake_model, process, running

CHAT = "smollm2-135m-instruct"
GREEDY = {"temperature": 0}  # this client has no name for it any more; older ones send it as it is
COUNT: Any = [{"role": "user", "content": "Count: one two three four five six seven"}]


@pytest.fixture(scope="module")
def client(models_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    home = tmp_path_factory.mktemp("service")
    with (
        process(home, environment={"PAGODA_MODELS_DIRECTORY": str(models_directory)}) as (url, _),
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as opened,
    ):
        yield opened


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.real_model
def test_a_message_whole_and_streamed(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": CHAT, "max_tokens": 30, "messages": COUNT, "extra_body": GREEDY, "system": "You count."}
    asked["extra_headers"] = {"Cache-Control": "no-store"}  # both are to be computed
    whole = client.messages.create(**asked)
    assert text_of(whole)
    assert whole.stop_reason == "end_turn"
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(whole) == text_of(final)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    cached = final.usage.cache_read_input_tokens or 0
    assert cached > 0, "the second request has the same prefix"
    assert final.usage.input_tokens + cached == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    counted = client.messages.count_tokens(model=CHAT, messages=COUNT, system="You count.")
    assert counted.input_tokens == final.usage.input_tokens + cached


@pytest.mark.real_model
def test_a_message_stops_where_it_should(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": CHAT, "messages": COUNT, "extra_body": GREEDY}
    short = client.messages.create(**asked, max_tokens=2)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    stopped = client.messages.create(**asked, max_tokens=30, stop_sequences=["zzz", "four"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "four")
    assert "three" in text_of(stopped)
    assert "four" not in text_of(stopped)
    with client.messages.stream(**asked, max_tokens=30, stop_sequences=["zzz", "four"]) as stream:
        assert stream.get_final_message().stop_sequence == "four"


@pytest.mark.real_model
def test_a_trailing_assistant_message_is_continued(client: anthropic.Anthropic) -> None:
    messages: Any = [*COUNT, {"role": "assistant", "content": [{"type": "text", "text": "One two three"}]}]
    answer = client.messages.create(model=CHAT, max_tokens=3, messages=messages, extra_body=GREEDY)
    assert text_of(answer).startswith(" four")
    counted = client.messages.count_tokens(model=CHAT, messages=messages)
    assert counted.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)


@pytest.mark.real_model
def test_errors_have_the_right_class(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="claude-nobody"):
        client.messages.create(model="claude-nobody", max_tokens=5, messages=COUNT)
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    with pytest.raises(anthropic.BadRequestError, match="tools") as refused:
        client.messages.create(model=CHAT, max_tokens=5, messages=COUNT, tools=tools)
    assert refused.value.type == "invalid_request_error"
    long: Any = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(anthropic.BadRequestError, match="context"):
        client.messages.create(model=CHAT, max_tokens=5, messages=long)
    with pytest.raises(anthropic.APIStatusError) as large:
        client.messages.create(model=CHAT, max_tokens=5, messages=[{"role": "user", "content": "x" * 20_000_000}])
    assert large.value.status_code == 413


@pytest.mark.real_model
def test_models_are_listed(client: anthropic.Anthropic) -> None:
    assert CHAT in [model.id for model in client.models.list()]
    assert client.models.retrieve(CHAT).type == "model"


WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
}


@pytest.mark.real_model
def test_a_tool_is_called_in_valid_form(client: anthropic.Anthropic) -> None:
    question: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
    asked: Any = {"model": CHAT, "max_tokens": 100, "extra_body": GREEDY, "messages": question}
    asked |= {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
    whole: Any = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        final: Any = stream.get_final_message()
    for message in (whole, final):
        [block] = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use"
        assert block.name == "weather"
        assert block.input["city"] in ("Oslo", "Rome")


async def test_a_tools_result_goes_back(settings: Settings) -> None:
    model = fake_model(
        rules=[
            {"contains": "4 degrees", "text": "It is cold."},
            {"contains": "weather in Oslo", "text": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        ],
        context=4096,
    )
    async with (
        running(settings, [model]) as service,
        anthropic.AsyncAnthropic(base_url=service.url, api_key="none", max_retries=0) as client,
    ):
        messages: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
        asked: Any = {"model": "fake-chat", "max_tokens": 60, "tools": [WEATHER]}
        called = await client.messages.create(**asked, messages=messages, tool_choice={"type": "any"})
        [block] = called.content
        assert block.type == "tool_use"
        assert block.input == {"city": "Oslo"}
        result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "4 degrees"}]}
        messages += [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
        answered = await client.messages.create(**asked, messages=messages, tool_choice={"type": "none"})
        assert text_of(answered) == "It is cold."
        assert answered.stop_reason == "end_turn"


async def test_thinking_comes_as_blocks_and_failures_as_errors(settings: Settings) -> None:
    model = fake_model(
        rules=[
            {"contains": "ponder", "text": "<think>Let me see.</think>\n\nIt is four."},
            {"contains": "cut here", "fault": "cut", "fault_at": 2, "text": "one two three four"},
        ]
    )
    async with (
        running(settings, [model]) as service,
        anthropic.AsyncAnthropic(base_url=service.url, api_key="none", max_retries=0) as client,
    ):
        asked: Any = {"model": "fake-chat", "max_tokens": 20, "messages": [{"role": "user", "content": "ponder"}]}
        whole: Any = await client.messages.create(**asked, thinking={"type": "adaptive"})
        async with client.messages.stream(**asked, thinking={"type": "adaptive"}) as stream:
            final: Any = await stream.get_final_message()
        for message in (whole, final):
            thinking, text = message.content
            assert thinking.type == "thinking"
            assert thinking.thinking == "Let me see."
            assert text.type == "text"
            assert text.text == "It is four."
        asked["messages"] = [{"role": "user", "content": "cut here"}]
        with pytest.raises(anthropic.APIStatusError, match="ask again"):
            async with client.messages.stream(**asked) as stream:
                await stream.get_final_message()
