"""Limits over HTTP: exactly so many requests, exact budgets, the headers, and what is charged however a call ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from pagoda.core.settings import Prices, Settings
from pagoda.core.storage.records import BudgetRecord, UsageRecord
from pagoda.service.keys.key import NANO, Limits
from tests.rings import Ring, limited
from tests.services import Service, eventually, fake_model, running

CHAT = "/v1/chat/completions"


def asking(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


async def ask(service: Service, key: str, **fields: Any) -> tuple[int, Any, Any]:
    headers = {"Authorization": f"Bearer pk-{key}", "Cache-Control": fields.pop("cache", "no-store")}
    async with service.session.post(service.url + CHAT, json=asking(**fields), headers=headers) as response:
        return response.status, await response.json(), response.headers


async def rows(service: Service) -> list[UsageRecord]:
    limiter = service.platform._limiter
    assert limiter is not None
    await limiter.books.flush()
    store = await service.platform.records()
    async with store.read() as session:
        return list(await session.scalars(select(UsageRecord).order_by(UsageRecord.id)))


async def budget(service: Service, account: str) -> BudgetRecord:
    await rows(service)
    store = await service.platform.records()
    async with store.read() as session:
        return await session.get_one(BudgetRecord, (account, "total"))


async def test_exactly_ten_of_two_hundred_concurrent_requests_are_answered(settings: Settings) -> None:
    ring = Ring(limited("k", requests_per_minute=10))
    async with running(settings, [fake_model(text="Hi.")], ring) as service:
        answers = await asyncio.gather(*(ask(service, "k", max_tokens=4) for _ in range(200)))
        statuses = [status for status, _, _ in answers]
        assert (statuses.count(200), statuses.count(429)) == (10, 190)
        _, body, headers = next(answer for answer in answers if answer[0] == 429)
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert headers["x-ratelimit-limit-requests"] == "10"
        assert headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_limited_keys_answers_say_how_it_stands(settings: Settings) -> None:
    ring = Ring(limited("k", requests_per_minute=10, tokens_per_minute=5000))
    async with running(settings, [fake_model(text="Hi.")], ring) as service:
        _, _, headers = await ask(service, "k", max_tokens=4)
        assert headers["x-ratelimit-limit-requests"] == "10"
        assert headers["x-ratelimit-remaining-requests"] == "9"
        assert headers["x-ratelimit-reset-requests"] == "1m0s"
        assert headers["x-ratelimit-limit-tokens"] == "5000"
        assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 5000
        async with service.session.post(
            service.url + CHAT, json=asking(stream=True), headers={"Authorization": "Bearer pk-k"}
        ) as response:
            assert response.headers["x-ratelimit-remaining-requests"] == "8"
            await response.read()
        status, _ = await service.chat("no key")
        assert status == 200


async def test_a_budget_is_spent_to_the_last_token_and_never_further(settings: Settings) -> None:
    ring = Ring(limited("k", budget_tokens=1500))
    words = " ".join(str(number) for number in range(400))
    async with running(settings, [fake_model(text=words)], ring) as service:
        answers: list[tuple[int, Any, Any]] = []
        for _ in range(12):
            answers += await asyncio.gather(*(ask(service, "k", max_tokens=40) for _ in range(20)))
        used = sum(body["usage"]["total_tokens"] for status, body, _ in answers if status == 200)
        found = await budget(service, "key:k")
        assert (
            found.spent_tokens == used == sum(row.prompt_tokens + row.completion_tokens for row in await rows(service))
        )
        assert used <= 1500
        status, body, headers = await ask(service, "k", max_tokens=40)
        assert status == 429, body
        assert body["error"]["code"] == body["error"]["type"] == "insufficient_quota"
        assert "1,500 tokens" in body["error"]["message"]
        assert headers["x-should-retry"] == "false"
        assert "Retry-After" not in headers


async def test_an_answer_without_a_length_is_capped_at_what_the_budget_leaves(settings: Settings) -> None:
    ring = Ring(limited("k", budget_tokens=400))
    words = " ".join(str(number) for number in range(2000))
    async with running(settings, [fake_model(text=words)], ring) as service:
        status, body, _ = await ask(service, "k")
        assert status == 200
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["total_tokens"] <= 400
        assert (await budget(service, "key:k")).spent_tokens == body["usage"]["total_tokens"]


async def test_money_is_counted_to_the_billionth(settings: Settings) -> None:
    settings = replace(settings, prices=Prices(models={"fake-chat": "0.15/0.075/0.60"}))
    ring = Ring(limited("k", budget_money=NANO))
    async with running(settings, [fake_model(text="one two three")], ring) as service:
        _, body, _ = await ask(service, "k", max_tokens=10)
        usage = body["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        cost = (usage["prompt_tokens"] - cached) * 150 + cached * 75 + usage["completion_tokens"] * 600
        assert (await budget(service, "key:k")).spent_money == cost > 0
        assert [row.money for row in await rows(service)] == [cost]


@pytest.mark.parametrize("charged", [False, True])
async def test_a_cache_hit_is_charged_only_where_settings_say_so(settings: Settings, charged: bool) -> None:
    settings = replace(settings, limits=replace(settings.limits, charge_cache_hits=charged))
    ring = Ring(limited("k", budget_tokens=5000))
    async with running(settings, [fake_model(text="Hi.")], ring) as service:
        _, first, _ = await ask(service, "k", max_tokens=4, temperature=0, cache="")
        _, _, headers = await ask(service, "k", max_tokens=4, temperature=0, cache="")
        assert headers["X-Cache"] == "hit"
        total = first["usage"]["total_tokens"]
        assert (await budget(service, "key:k")).spent_tokens == (2 * total if charged else total)


async def test_a_hit_that_breaks_its_form_is_charged_by_all_of_its_pieces(settings: Settings) -> None:
    settings = replace(settings, limits=replace(settings.limits, charge_cache_hits=True))
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    async with running(settings, [fake_model(text="one two three four")], Ring(limited("k"))) as service:
        wanted = {"temperature": 0, "response_format": form}
        _, whole, _ = await ask(service, "k", temperature=0, cache="")
        computed = whole["usage"]["completion_tokens"]
        assert computed > 3
        for _ in range(2):
            assert (await ask(service, "k", cache="", **wanted))[0] == 502
        hits = [row for row in await rows(service) if row.status == "cancelled"]
        assert [row.completion_tokens for row in hits] == [computed] * len(hits)
        assert len(hits) >= 1


async def test_a_client_that_leaves_is_charged_what_was_produced(settings: Settings) -> None:
    ring = Ring(limited("k", budget_tokens=100_000, concurrent=1))
    slow = fake_model(text=" ".join(["word"] * 1000), token_seconds=0.02)
    async with running(settings, [slow], ring) as service:
        headers = {"Authorization": "Bearer pk-k"}
        response = await service.session.post(service.url + CHAT, json=asking(stream=True), headers=headers)
        seen = 0
        async for line in response.content:
            seen += b'"content"' in line
            if seen == 5:
                break
        assert (await ask(service, "k"))[0] == 429  # it is under way
        response.close()
        limiter = service.platform._limiter
        assert limiter is not None
        await eventually(lambda: limiter._open == 0)
        (row,) = await rows(service)
        assert (row.status, row.estimated) == ("cancelled", True)
        assert 3 <= row.completion_tokens < 500
        assert row.prompt_tokens > 0
        found = await budget(service, "key:k")
        assert found.spent_tokens == row.prompt_tokens + row.completion_tokens
        assert (await ask(service, "k", max_tokens=1))[0] == 200


async def test_a_team_bounds_its_keys_together(settings: Settings) -> None:
    team = Limits(requests_per_minute=3)
    ring = Ring(*(limited(name, team_limits=team, requests_per_minute=2) for name in "ab"))
    async with running(settings, [fake_model(text="Hi.")], ring) as service:
        statuses = [(await ask(service, name, max_tokens=2))[0] for name in "aabb"]
        assert statuses == [200, 200, 200, 429]


async def test_a_restart_remembers_budgets(settings: Settings) -> None:
    ring = Ring(limited("k", budget_tokens=400))
    words = " ".join(str(number) for number in range(2000))
    async with running(settings, [fake_model(text=words)], ring) as service:
        assert (await ask(service, "k"))[0] == 200
    async with running(settings, [fake_model(text=words)], ring) as service:
        status, body, _ = await ask(service, "k", max_tokens=300)
        assert (status, body["error"]["code"]) == (429, "insufficient_quota")
        assert 200 < (await budget(service, "key:k")).spent_tokens <= 400


async def test_calls_without_a_key_are_recorded_and_not_limited(settings: Settings) -> None:
    async with running(settings, [fake_model(text="Hi.")], Ring()) as service:
        _, body = await service.chat("hello")
        (row,) = await rows(service)
        assert (row.key_id, row.model, row.endpoint) == ("local", "fake-chat", CHAT)
        assert row.prompt_tokens + row.completion_tokens == body["usage"]["total_tokens"]


async def test_usage_is_reported_by_key_model_and_day_and_adds_up(settings: Settings) -> None:
    settings = replace(settings, prices=Prices(currency="EUR", models={"*": "1/1/1"}))
    ring = Ring(limited("a", requests_per_minute=100), limited("b", requests_per_minute=100))
    async with running(settings, [fake_model(text="one two three")], ring) as service:
        answers = [(await ask(service, name, max_tokens=2))[1]["usage"]["total_tokens"] for name in "aab"]
        async with service.session.get(service.url + "/api/v1/usage?by=key,model") as response:
            report = await response.json()
        assert [(row["key"], row["model"], row["requests"]) for row in report["rows"]] == [
            ("a", "fake-chat", 2), ("b", "fake-chat", 1),
        ]  # fmt: skip
        counted = [row["prompt_tokens"] + row["completion_tokens"] for row in report["rows"]]
        assert counted == [answers[0] + answers[1], answers[2]]
        assert report["total"]["money"] == sum(answers) * 1000
        assert report["total"]["cost"].endswith(" EUR")
        for wrong in ("to=0", "from=2020-1-1", "by=colour", "by=key,key", "from=yesterday"):
            async with service.session.get(f"{service.url}/api/v1/usage?{wrong}") as response:
                assert response.status == 400
        async with service.session.get(service.url + "/api/v1/usage?key=b&from=2020-01-01&by=day") as response:
            rows_of_b = (await response.json())["rows"]
        assert [row["requests"] for row in rows_of_b] == [1]
        async with service.session.get(service.url + "/api/v1/usage?to=2020-01-01") as response:
            assert (await response.json())["rows"] == []
