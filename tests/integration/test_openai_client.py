"""The official `openai` client against a real service with the real packaged models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.services import process

CHAT = "smollm2-135m-instruct"
ASK: Any = [{"role": "user", "content": "Name three colours."}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
                "required": ["city"],
            },
        },
    }
]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def client(models_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    home = tmp_path_factory.mktemp("service")
    settings = {"PAGODA_MODELS_DIRECTORY": str(models_directory), "PAGODA_MODELS_ALIASES": f"gpt-4o-mini={CHAT}"}
    with (
        process(home, environment=settings) as (url, _),
        openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as opened,
    ):
        yield opened


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=ASK, max_tokens=20, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 20
    again = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_tokens=20, temperature=0)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.model == CHAT


def test_streaming_gives_the_same_text_and_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=ASK, max_tokens=20, temperature=0)
    stream = client.chat.completions.create(
        model=CHAT,
        messages=ASK,
        max_tokens=20,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content
    assert usage is not None
    assert whole.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)


def test_json_schema_is_kept(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Describe a person as JSON."}],
        response_format=form,
        max_tokens=80,
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert set(person) == {"name", "age"}
    assert 1 <= person["age"] <= 99


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT,
        messages=ASK,
        max_tokens=5,
        temperature=0,
        logprobs=True,
        top_logprobs=4,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 4
        assert sum(math.exp(rival.logprob) for rival in entry.top_logprobs) <= 1 + 1e-6
        assert entry.bytes is not None
        assert bytes(entry.bytes).decode() == entry.token


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=CHAT, prompt=["The capital of France is", "One, two,"], max_tokens=2, temperature=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text.startswith(" Paris")


@pytest.mark.parametrize("model", ["multilingual-e5-small", "all-minilm-l6-v2"])
def test_embeddings_find_the_nearest_meaning(client: openai.OpenAI, model: str) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "The central bank raised interest rates."]
    rows = [row.embedding for row in client.embeddings.create(model=model, input=texts).data]

    def closeness(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(rows[a], rows[b], strict=True))

    assert closeness(0, 1) > closeness(0, 2)
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(rows[0], abs=1e-6)


def test_embeddings_of_token_ids_and_kinds_of_input(client: openai.OpenAI) -> None:
    by_ids = client.embeddings.create(model="multilingual-e5-small", input=[[0, 33600, 31, 8999, 2]])
    assert len(by_ids.data[0].embedding) == 384
    raw = client.embeddings.create(model="multilingual-e5-small", input="query: hello")
    kind = client.embeddings.create(model="multilingual-e5-small", input="hello", extra_body={"input_type": "query"})
    assert kind.data[0].embedding == pytest.approx(raw.data[0].embedding, abs=1e-6)
    plain = client.embeddings.create(model="multilingual-e5-small", input="hello")
    assert plain.data[0].embedding != pytest.approx(raw.data[0].embedding, abs=1e-3)


def test_models(client: openai.OpenAI) -> None:
    assert CHAT in [model.id for model in client.models.list()]
    assert client.models.retrieve(CHAT).id == CHAT


def test_a_model_without_a_tool_template_calls_tools_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
    options: Any = {"model": CHAT, "tools": TOOLS, "temperature": 0, "max_tokens": 100}
    answer = client.chat.completions.create(messages=asked, tool_choice="required", **options)
    message = answer.choices[0].message
    call: Any = (message.tool_calls or [])[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"]
    frames = list(client.chat.completions.create(messages=asked, tool_choice="required", stream=True, **options))
    pieces = [piece for frame in frames for piece in frame.choices[0].delta.tool_calls or []]
    written = ["" for _ in message.tool_calls or []]
    for piece in pieces:
        written[piece.index] += (piece.function and piece.function.arguments) or ""
    assert written == [each.function.arguments for each in message.tool_calls or []]
    assert frames[-1].choices[0].finish_reason == "tool_calls"
    told: Any = [*asked, message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees."}]
    after = client.chat.completions.create(messages=told, tool_choice="none", **options)
    assert after.choices[0].message.content


def test_each_error_has_the_right_class(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=ASK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model=CHAT, messages=ASK, temperature=9)
    assert hot.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as tools:
        client.chat.completions.create(model=CHAT, messages=ASK, tools=TOOLS, n=2)
    assert tools.value.param == "n"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "word " * 9000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wide:
        client.embeddings.create(model="all-minilm-l6-v2", input="x", dimensions=7)
    assert wide.value.param == "dimensions"
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "x" * 20_000_000}])
    assert large.value.status_code == 413
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(default_headers={"Origin": "http://evil.example"}).models.list()
    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": "Tell a long story."}],
            extra_headers={"X-Request-Timeout": "0.05"},
        )
    assert late.value.code == "timeout"
