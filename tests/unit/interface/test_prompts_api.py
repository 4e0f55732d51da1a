"""Prompts over HTTP: kept, labelled, filled in, asked, named in chat requests; kept apart by team."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.settings import Prompts, Settings
from pagoda.logic.prompts.book import Author
from tests.services import Service, fake_model, running
from tests.unit.logic.prompts.sheets import SENTIMENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULES = [
    {"contains": "Review: Loved it.", "text": "Good."},
    {"contains": "影评：喜欢", "text": "好"},
    {"contains": "and more", "text": "followed"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    settings = dataclasses.replace(module_settings, prompts=Prompts(refresh_seconds=0.05))
    models = [fake_model(rules=RULES), fake_model("other", text="other"), fake_model("fake-embed", task="embedding")]
    async with running(settings, models) as started:
        await started.post("/api/v1/prompts", {"source": SENTIMENT, "label": "production", "note": "first"})
        yield started


async def get(service: Service, path: str) -> tuple[int, Any]:
    async with service.session.get(service.url + path) as response:
        return response.status, await response.json()


async def keep(service: Service, joke: str, **fields: str) -> int:
    status, kept = await service.post("/api/v1/prompts", {"source": SENTIMENT.replace("A joy", joke), **fields})
    assert status == 200, kept
    version: int = kept["version"]
    return version


async def test_prompts_are_listed_with_those_that_come_with_pagoda(service: Service) -> None:
    status, listed = await get(service, "/api/v1/prompts")
    rows = {row["name"]: row for row in listed["data"]}
    assert status == 200
    assert {"maths", "translate", "summarise", "classify", "extract", "answer", "rewrite", "review-code"} < set(rows)
    assert (rows["sentiment"]["origin"], rows["maths"]["origin"]) == ("team", "packaged")
    assert rows["sentiment"]["techniques"] == ["few-shot"]
    status, shown = await get(service, "/api/v1/prompts/sentiment?version=1")
    assert (shown["source"], shown["labels"]["production"]) == (SENTIMENT, 1)


async def test_a_chat_request_may_name_a_prompt(service: Service) -> None:
    named = {"name": "sentiment", "version": 1, "variables": {"text": "Loved it."}}
    async with service.session.post(service.url + "/v1/chat/completions", json={"prompt": named}) as response:
        answer = await response.json()
        assert (response.status, response.headers["X-Pagoda-Prompt"]) == (200, "sentiment@1")
    assert answer["choices"][0]["message"]["content"] == "Good."
    chinese = {**named, "language": "zh", "variables": {"text": "喜欢"}}
    _, answer = await service.post("/v1/chat/completions", {"prompt": chinese, "messages": []})
    assert answer["choices"][0]["message"]["content"] == "好"


async def test_messages_follow_those_of_the_prompt_and_what_the_request_says_wins(service: Service) -> None:
    named = {"name": "sentiment", "label": "production", "variables": {"text": "x"}}
    more = [{"role": "assistant", "content": "bad"}, {"role": "user", "content": "and more"}]
    _, answer = await service.post("/v1/chat/completions", {"prompt": named, "messages": more})
    assert answer["choices"][0]["message"]["content"] == "followed"
    _, answer = await service.post("/v1/chat/completions", {"prompt": named, "model": "other", "max_tokens": 1})
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("other", "other")


async def test_a_stream_may_name_a_prompt(service: Service) -> None:
    frames = await service.stream(
        "/v1/chat/completions", {"prompt": {"name": "sentiment", "version": 1, "variables": {"text": "Loved it."}}}
    )
    said = "".join(frame["choices"][0]["delta"].get("content", "") for frame in frames[:-1] if frame["choices"])
    assert said == "Good."


@pytest.mark.parametrize(
    ("prompt", "status", "param"),
    [
        ({"name": "nothing"}, 404, "prompt.name"),
        ({"name": "sentiment", "version": 999, "variables": {"text": "x"}}, 404, "version"),
        ({"name": "sentiment", "label": "unset", "variables": {"text": "x"}}, 404, "prompt.label"),
        ({"name": "maths", "version": 2}, 404, "prompt.version"),
        ({"name": "sentiment"}, 400, "text"),
        ({"name": "sentiment", "variables": {"text": 5}}, 400, "text"),
        ({"name": "sentiment", "variables": {"text": "x", "txt": "y"}}, 400, "txt"),
        ({"name": "sentiment", "version": 1, "label": "production"}, 400, "prompt"),
        ({"name": "sentiment", "words": {}}, 400, "prompt.words"),
        ({"name": "../x"}, 400, "prompt.name"),
    ],
)
async def test_a_prompt_that_cannot_be_used_is_refused_by_name(
    service: Service, prompt: dict[str, Any], status: int, param: str
) -> None:
    found, answer = await service.post("/v1/chat/completions", {"prompt": prompt})
    assert (found, answer["error"]["param"]) == (status, param)


async def test_a_template_that_reaches_for_python_is_refused(service: Service) -> None:
    evil = SENTIMENT.replace("Review: {{text}}", "{{text.__class__.__mro__}}")
    status, answer = await service.post("/api/v1/prompts", {"source": evil})
    assert (status, answer["error"]["code"]) == (400, "bad_template")
    held = {"text": "{{labels}} {{text.__class__}}"}
    _, shown = await service.post("/api/v1/prompts/sentiment/render", {"version": 1, "variables": held})
    assert shown["messages"][-1]["content"] == "Review: {{labels}} {{text.__class__}}"


async def test_render_tells_messages_settings_and_tokens(service: Service) -> None:
    status, shown = await service.post("/api/v1/prompts/sentiment/render", {"version": 1, "variables": {"text": "x"}})
    assert (status, shown["model"], shown["examples"], shown["trimmed"]) == (200, "fake-chat", 2, [])
    assert shown["settings"] == {"temperature": 0, "max_tokens": 8, "stop": ["\n"]}
    assert shown["tokens"] > 10
    status, answer = await service.post(
        "/api/v1/prompts/maths/render", {"variables": {"problem": "word " * 5}, "max_tokens": 4090}
    )
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_run_finds_the_answer_and_votes(service: Service) -> None:
    body = {"version": 1, "variables": {"text": "Loved it."}}
    status, answer = await service.post("/api/v1/prompts/sentiment/run", body)
    assert (status, answer["answer"], answer["text"], answer["vote"]) == (200, "good", "Good.", None)
    source = SENTIMENT.replace("name: sentiment", "name: voting").replace(
        "techniques:", "techniques:\n  self-consistency: {samples: 3}"
    )
    await service.post("/api/v1/prompts", {"source": source})
    _, answer = await service.post("/api/v1/prompts/voting/run", {"variables": {"text": "Loved it."}})
    assert (answer["answer"], answer["vote"]["votes"], answer["vote"]["samples"]) == ("good", 3, 3)


async def test_labels_move_and_go_back_over_http(service: Service) -> None:
    first, second = await keep(service, "Joke one"), await keep(service, "Joke two")
    path = "/api/v1/prompts/sentiment/labels/staging"
    assert (await service.post(path, {"version": first}))[0] == 200
    assert (await service.post(path, {"version": second, "expected": first}))[0] == 200
    assert (await service.post(path, {"version": first, "expected": first}))[0] == 409
    _, change = await service.post(path + "/rollback", {"note": "worse"})
    assert (change["action"], change["version"], change["note"]) == ("rolled-back", first, "worse")
    _, told = await get(service, f"/api/v1/prompts/sentiment/diff?before={first}&after={second}")
    assert "+      - {text: Joke two." in told["diff"]
    _, history = await get(service, "/api/v1/prompts/sentiment/history?label=staging")
    assert [line["version"] for line in history["data"]] == [first, second, first]
    _, versions = await get(service, "/api/v1/prompts/sentiment/versions")
    assert {first, second} <= {row["version"] for row in versions["data"]}
    async with service.session.delete(service.url + path) as response:
        assert response.status == 200
    assert (await get(service, "/api/v1/prompts/sentiment?label=staging"))[0] == 404


async def test_a_label_moved_by_another_process_holds_within_a_second(service: Service) -> None:
    first, second = await keep(service, "Joke three"), await keep(service, "Joke four")
    for version in (first, second):
        await service.platform.prompt_book.move("sentiment", "canary", version, Author())  # nobody tells the index
        end = time.monotonic() + 20
        while (await get(service, "/api/v1/prompts/sentiment?label=canary"))[1].get("version") != version:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)


async def test_a_prompt_of_the_same_name_takes_the_place_of_a_packaged_one(service: Service) -> None:
    await service.post("/api/v1/prompts", {"source": SENTIMENT.replace("name: sentiment", "name: rewrite")})
    _, shown = await get(service, "/api/v1/prompts/rewrite")
    assert shown["origin"] == "team"


async def test_teams_do_not_see_each_others_prompts(service: Service) -> None:
    secrets = {}
    for team in ("blue", "red"):
        body = {"name": team, "team": team, "scopes": ["inference", "operate"]}
        secrets[team] = (await service.post("/api/v1/keys", body))[1]["secret"]
    plain = (await service.post("/api/v1/keys", {"name": "plain", "team": "blue"}))[1]["secret"]
    blue, red = ({"Authorization": f"Bearer {secrets[team]}"} for team in ("blue", "red"))
    source = {"source": SENTIMENT.replace("name: sentiment", "name: secret-plan")}
    assert (await service.post("/api/v1/prompts", source, **blue))[0] == 200
    refused, _ = await service.post("/api/v1/prompts", source, Authorization=f"Bearer {plain}")
    assert refused == 403, "to change prompts needs the scope operate"
    asked = {"prompt": {"name": "secret-plan", "variables": {"text": "Loved it."}}}
    assert (await service.post("/v1/chat/completions", asked, Authorization=f"Bearer {plain}"))[0] == 200
    assert (await service.post("/v1/chat/completions", asked, **red))[0] == 404
    for path in ("", "/versions", "/history", "/diff?before=1&after=1"):
        async with service.session.get(service.url + "/api/v1/prompts/secret-plan" + path, headers=red) as response:
            assert response.status == 404, path
    async with service.session.get(service.url + "/api/v1/prompts", headers=red) as response:
        names = {row["name"] for row in (await response.json())["data"]}
    assert ("secret-plan" in names, "sentiment" in names, "maths" in names) == (False, False, True)


async def test_a_unit_of_an_experiment_has_a_bound(service: Service) -> None:
    status, answer = await service.post(
        "/v1/chat/completions", {"prompt": {"name": "maths"}}, **{"X-Experiment-Unit": "u" * 501}
    )
    assert (status, answer["error"]["param"]) == (400, "X-Experiment-Unit")
