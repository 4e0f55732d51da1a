"""The official `openai` client's Responses, against the real packaged model and a scripted one that thinks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from pagoda.core.settings import Settings
from tests.services import fake_model, process, running

CHAT = "smollm2-135m-instruct"
ASK = "Name three colours."


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=1, le=99)


@pytest.fixture(scope="module")
def client(models_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    home = tmp_path_factory.mktemp("service")
    with (
        process(home, environment={"PAGODA_MODELS_DIRECTORY": str(models_directory)}) as (url, _),
        openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as opened,
    ):
        yield opened


@pytest.mark.real_model
def test_a_response_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"model": CHAT, "input": ASK, "max_output_tokens": 20, "temperature": 0, "instructions": "Be brief."}
    whole = client.responses.create(**asked)
    assert whole.output_text
    assert whole.usage is not None
    with client.responses.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert final.output_text == whole.output_text
    assert final.status == whole.status
    assert final.usage is not None
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert {"response.created", "response.output_text.delta", "response.output_text.done"} <= kinds
    turns: Any = [*whole.to_dict()["output"], {"role": "user", "content": "And one more."}]
    assert client.responses.create(model=CHAT, input=turns, max_output_tokens=5).output_text


@pytest.mark.real_model
def test_a_response_that_was_cut_says_so_with_usage(client: openai.OpenAI) -> None:
    asked: Any = {"model": CHAT, "input": "Count to fifty in words.", "max_output_tokens": 4}
    whole = client.responses.create(**asked)
    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    last = list(client.responses.create(**asked, stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 4


@pytest.mark.real_model
def test_a_response_is_parsed_by_its_schema(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model=CHAT, input="Describe a person as JSON.", text_format=Person, max_output_tokens=80
    )
    assert isinstance(parsed.output_parsed, Person)


@pytest.mark.real_model
def test_log_probabilities_of_a_response(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model=CHAT,
        input=ASK,
        max_output_tokens=5,
        temperature=0,
        include=["message.output_text.logprobs"],
        top_logprobs=3,
    )
    message = answer.output[0]
    assert message.type == "message"
    part = message.content[0]
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert "".join(entry.token for entry in part.logprobs) == part.text
    assert all(len(entry.top_logprobs) == 3 for entry in part.logprobs)


@pytest.mark.real_model
def test_what_cannot_be_honoured_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as earlier:
        client.responses.create(model=CHAT, input=ASK, previous_response_id="resp_1")
    assert earlier.value.param == "previous_response_id"
    with pytest.raises(openai.BadRequestError) as stored:
        client.responses.create(model=CHAT, input=ASK, store=True)
    assert stored.value.param == "store"


async def test_thinking_is_an_item_and_a_failure_an_event(settings: Settings) -> None:
    model = fake_model(
        rules=[
            {"contains": "ponder", "text": "<think>Let me see.</think>\n\nIt is four."},
            {"contains": "cut here", "fault": "cut", "fault_at": 2, "text": "one two three four"},
        ]
    )
    async with (
        running(settings, [model]) as service,
        openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=0) as client,
    ):
        async with client.responses.stream(model="fake-chat", input="ponder") as stream:
            final = await stream.get_final_response()
        thinking, message = final.output
        assert thinking.type == "reasoning"
        assert thinking.content is not None
        assert thinking.content[0].text == "Let me see."
        assert message.type == "message"
        assert final.output_text == "It is four."
        events = [
            event async for event in await client.responses.create(model="fake-chat", input="cut here", stream=True)
        ]
        assert events[-1].type == "response.failed"
        assert events[-1].response.error is not None
        assert "ask again" in events[-1].response.error.message
        assert events[-1].response.usage is not None


WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
}


@pytest.mark.real_model
def test_a_function_is_called_in_valid_form(client: openai.OpenAI) -> None:
    asked: Any = {"model": CHAT, "input": "What is the weather in Oslo?", "max_output_tokens": 100, "temperature": 0}
    asked |= {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}}
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    for response in (whole, final):
        [call] = response.output
        assert (call.type, call.name, response.status) == ("function_call", "weather", "completed")
        assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")


async def test_a_functions_result_goes_back(settings: Settings) -> None:
    model = fake_model(
        rules=[
            {"contains": "4 degrees", "text": "It is cold."},
            {"contains": "weather in Oslo", "text": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        ],
        context=4096,
    )
    async with (
        running(settings, [model]) as service,
        openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=0) as client,
    ):
        turns: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
        asked: Any = {"model": "fake-chat", "tools": [WEATHER], "tool_choice": "required"}
        called: Any = await client.responses.create(**asked, input=turns)
        [call] = called.output
        assert json.loads(call.arguments) == {"city": "Oslo"}
        turns += [call.to_dict(), {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees"}]
        answered = await client.responses.create(model="fake-chat", tools=[WEATHER], tool_choice="none", input=turns)
        assert answered.output_text == "It is cold."
        with pytest.raises(openai.BadRequestError, match="tool_choice needs tools"):
            await client.responses.create(model="fake-chat", input="x", tool_choice="required")
