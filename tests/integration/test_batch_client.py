"""Files and batches as the official `openai` client uses them, over a scripted model; the runs are real processes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai.types import Batch

from pagoda.core.settings import Settings
from tests.services import Service, fake_model, running

MODELS = (
    fake_model(rules=[{"contains": "slow", "first_seconds": 0.4, "text": "at last"}]),
    fake_model("fake-embed", task="embedding"),
)
ENDED = ("completed", "failed", "expired", "cancelled")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Service, openai.AsyncOpenAI]]:
    async with (
        running(settings, MODELS) as service,
        openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=0) as client,
    ):
        yield service, client


def chat_line(custom_id: str, text: str = "hello", **fields: Any) -> dict[str, Any]:
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


async def uploaded(client: openai.AsyncOpenAI, *lines: Any) -> str:
    content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return (await client.files.create(file=("requests.jsonl", content.encode()), purpose="batch")).id


async def begun(client: openai.AsyncOpenAI, *lines: Any, endpoint: Any = "/v1/chat/completions") -> Batch:
    file_id = await uploaded(client, *lines)
    return await client.batches.create(
        input_file_id=file_id, endpoint=endpoint, completion_window="24h", metadata={"of": "tests"}
    )


async def until(client: openai.AsyncOpenAI, batch: Batch, *statuses: str) -> Batch:
    end = time.monotonic() + 60
    while batch.status not in statuses:
        assert time.monotonic() < end, batch
        assert batch.status not in ENDED, batch
        await asyncio.sleep(0.05)
        batch = await client.batches.retrieve(batch.id)
    return batch


async def rows(client: openai.AsyncOpenAI, file_id: str | None) -> list[Any]:
    assert file_id is not None
    return [json.loads(line) for line in (await client.files.content(file_id)).text.splitlines()]


async def test_a_batch_from_upload_to_answers(settings: Settings) -> None:
    async with opened(settings) as (service, client):
        lines = [chat_line(f"r{number}", f"number {number}") for number in range(7)]
        lines += [chat_line("hot", temperature=9), chat_line("nobody", model="gpt-9")]
        lines += [chat_line("s", stream=True), chat_line("sure", trust=True)]
        batch = await begun(client, *lines)
        assert batch.status in ("validating", "in_progress")
        assert batch.output_file_id is None
        assert batch.expires_at is not None
        assert batch.expires_at - batch.created_at == 24 * 3600
        batch = await until(client, batch, "completed")
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 11, "completed": 7, "failed": 4}
        assert batch.metadata == {"of": "tests"}
        assert batch.in_progress_at is not None
        assert batch.finalizing_at is not None
        assert batch.completed_at is not None
        answers = {row["custom_id"]: row for row in await rows(client, batch.output_file_id)}
        assert set(answers) == {f"r{number}" for number in range(7)}
        response = answers["r3"]["response"]
        assert response["status_code"] == 200
        assert response["body"]["choices"][0]["message"]["content"] == "fake number 3"
        _, direct = await service.chat("number 3", model="fake-chat", temperature=0)
        assert response["body"]["usage"] == direct["usage"]
        assert set(response["body"]) == set(direct)
        failed = {row["custom_id"]: row["response"] for row in await rows(client, batch.error_file_id)}
        refused = {name: (row["status_code"], row["body"]["error"]["param"]) for name, row in failed.items()}
        assert refused == {
            "hot": (400, "temperature"),
            "nobody": (404, "model"),
            "s": (400, "stream"),
            "sure": (400, "trust"),
        }
        assert batch.usage is not None
        assert batch.usage.output_tokens == 3 * 7
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("endpoint", "body", "key"),
    [
        ("/v1/embeddings", {"model": "fake-embed", "input": "hello"}, "data"),
        ("/v1/completions", {"model": "fake-chat", "prompt": "hello"}, "choices"),
        ("/v1/responses", {"model": "fake-chat", "input": "hello"}, "output"),
    ],
)
async def test_every_endpoint_can_be_batched(settings: Settings, endpoint: str, body: Any, key: str) -> None:
    async with opened(settings) as (_, client):
        line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
        batch = await until(client, await begun(client, line, endpoint=endpoint), "completed")
        (row,) = await rows(client, batch.output_file_id)
        assert row["response"]["body"][key]
        assert batch.error_file_id is None


async def test_a_wrong_file_fails_with_every_mistake_and_answers_nothing(settings: Settings) -> None:
    async with opened(settings) as (_, client):
        wrong = [chat_line("a"), "{oops", chat_line("a"), {**chat_line("b"), "url": "/v1/embeddings"}]
        batch = await until(client, await begun(client, *wrong), "failed")
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [(error.line, error.code) for error in batch.errors.data] == [
            (2, "invalid_json_line"),
            (3, "duplicate_custom_id"),
            (4, "mismatched_url"),
        ]
        assert batch.output_file_id is None
        assert batch.failed_at is not None


async def test_a_cancelled_batch_keeps_what_it_has_answered(settings: Settings) -> None:
    async with opened(settings) as (_, client):
        lines = [chat_line("first"), *(chat_line(f"s{number}", "slow") for number in range(300))]
        batch = await begun(client, *lines)
        with pytest.raises(openai.ConflictError, match="input of"):
            await client.files.delete(batch.input_file_id)
        while not (batch.request_counts and batch.request_counts.completed):
            batch = await until(client, await client.batches.retrieve(batch.id), "in_progress")
        assert (await client.batches.cancel(batch.id)).status in ("cancelling", "cancelled")
        batch = await until(client, await client.batches.retrieve(batch.id), "cancelled")
        assert batch.cancelled_at is not None
        answered = await rows(client, batch.output_file_id)
        assert batch.request_counts is not None
        assert 0 < len(answered) == batch.request_counts.completed < 301
        assert (await client.files.delete(batch.input_file_id)).deleted


async def test_files_and_batches_are_listed_in_pages(settings: Settings) -> None:
    async with opened(settings) as (_, client):
        batches = [await begun(client, chat_line("a")) for _ in range(3)]
        listed = [batch.id async for batch in client.batches.list(limit=2)]
        assert listed == [batch.id for batch in reversed(batches)]
        for batch in batches:
            await until(client, batch, "completed")
        inputs = [file.id async for file in client.files.list(purpose="batch", order="asc", limit=2)]
        assert inputs == [batch.input_file_id for batch in batches]
        made = [file async for file in client.files.list(purpose="batch_output")]
        assert len(made) == 3
        shown = await client.files.retrieve(inputs[0])
        assert (shown.filename, shown.purpose) == ("requests.jsonl", "batch")
        assert shown.bytes == len((await client.files.content(inputs[0])).read())


async def test_what_cannot_be_is_refused(settings: Settings) -> None:
    async with opened(settings) as (_, client):
        with pytest.raises(openai.BadRequestError) as purpose:
            await client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
        assert purpose.value.param == "purpose"
        with pytest.raises(openai.BadRequestError, match="empty"):
            await client.files.create(file=("a.jsonl", b""), purpose="batch")
        expiring: Any = {"anchor": "created_at", "seconds": 3600}
        with pytest.raises(openai.BadRequestError, match="expires_after"):
            await client.files.create(file=("a.jsonl", b"{}"), purpose="batch", expires_after=expiring)
        for ask in (client.files.retrieve, client.files.content, client.files.delete, client.batches.retrieve):
            with pytest.raises(openai.NotFoundError):
                await ask("file-nothing")
        with pytest.raises(openai.NotFoundError):
            await client.batches.create(input_file_id="file-x", endpoint="/v1/embeddings", completion_window="24h")
        window: Any = "1h"
        with pytest.raises(openai.BadRequestError) as soon:
            await client.batches.create(input_file_id="f", endpoint="/v1/embeddings", completion_window=window)
        assert soon.value.param == "completion_window"
