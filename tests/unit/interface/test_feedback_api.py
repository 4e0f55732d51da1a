"""``/api/v1/feedback`` and ``/api/v1/reviews`` over HTTP: tied to requests, idempotent, and on to training data."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from pagoda.core.settings import Experiments, Limits, Log, Reviews, Settings
from tests.services import Service, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    chosen = dataclasses.replace(
        module_settings,
        experiments=Experiments(refresh_seconds=0.05, write_seconds=0.05),
        limits=Limits(write_seconds=0.05),
        log=Log(content="all"),
        reviews=Reviews(hold=("password",), flag=("attack",), reviewers=2),
    )
    models = [fake_model("fake-chat", text="Paris."), fake_model("fake-leak", text="The password is 1234.")]
    async with running(chosen, [*models, fake_model("fake-attack", text="How to attack.")]) as started:
        yield started


async def asked(service: Service, **fields: Any) -> dict[str, str]:
    """Ids of a request that was answered."""
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "Capital of France?"}], **fields}
    async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200
        return {"request_id": response.headers["X-Request-Id"], "completion_id": (await response.json())["id"]}


async def say(service: Service, **fields: Any) -> tuple[int, Any]:
    return await service.post("/api/v1/feedback", fields)


async def get(service: Service, path: str) -> tuple[int, Any]:
    async with service.session.get(service.url + path) as response:
        return response.status, await response.json()


async def test_a_request_is_known_by_its_own_id_and_by_its_answers(service: Service) -> None:
    ids = await asked(service)
    for number, (name, value) in enumerate(ids.items()):
        status, given = await say(service, **{name: value}, thumb="up", user=f"person-{number}")
        assert (status, given["request_id"], given["repeated"]) == (200, ids["request_id"], False), given
    status, found = await get(service, f"/api/v1/feedback?about={ids['completion_id']}")
    assert [each["author"] for each in found["data"]] == ["person-1", "person-0"]


async def test_the_same_again_changes_nothing_and_another_word_needs_replace(service: Service) -> None:
    ids = await asked(service)
    first = await say(service, request_id=ids["request_id"], score=0.5)
    again = await say(service, completion_id=ids["completion_id"], score=0.5)
    assert (again[0], again[1]["repeated"], again[1]["id"]) == (200, True, first[1]["id"])
    status, refused = await say(service, request_id=ids["request_id"], score=0.9)
    assert (status, refused["error"]["code"]) == (409, "feedback_given")
    status, changed = await say(service, request_id=ids["request_id"], score=0.9, replace=True)
    assert (status, changed["id"], changed["score"]) == (200, first[1]["id"], 0.9)


async def test_feedback_for_a_request_that_nobody_made_is_refused(service: Service) -> None:
    status, refused = await say(service, request_id="req-" + "0" * 32, thumb="up")
    assert (status, refused["error"]["code"]) == (404, "request_not_found")
    status, refused = await say(service, experiment="none", unit="x", thumb="up")
    assert (status, refused["error"]["code"]) == (404, "experiment_not_found")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thumb": "up"}, "request_id"),
        ({"request_id": "a", "completion_id": "b", "thumb": "up"}, "completion_id"),
        ({"request_id": "a", "experiment": "b", "unit": "c", "thumb": "up"}, "request_id"),
        ({"experiment": "b", "thumb": "up"}, "request_id"),
        ({"request_id": "a"}, "thumb"),
        ({"request_id": "a", "thumb": "sideways"}, "thumb"),
        ({"request_id": "a", "score": 2}, "score"),
        ({"request_id": "a", "metrics": {"latency": 1}}, "metrics"),
        ({"request_id": "a", "metrics": {"sold": -1}}, "metrics"),
        ({"request_id": "a", "stars": 5}, "stars"),
    ],
)
async def test_feedback_that_says_nothing_or_nonsense_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    status, refused = await say(service, **fields)
    assert status == 400
    assert param in refused["error"]["param"]


async def test_feedback_counts_once_a_unit_in_the_experiment_it_belongs_to(service: Service) -> None:
    variants = [{"name": name, "share": 0.5, "model": "fake-chat"} for name in ("a", "b")]
    target = {"kind": "model", "name": "fake-chat"}
    wish = {"name": "liked", "target": target, "variants": variants, "metric": {"name": "sold", "most": 10.0}}
    assert (await service.post("/api/v1/experiments", wish | {"start": True}))[0] == 200
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "?"}]}
    async with service.session.post(
        service.url + "/v1/chat/completions", json=body, headers={"X-Experiment-Unit": "shop-1"}
    ) as response:
        request_id = response.headers["X-Request-Id"]
    status, given = await say(service, request_id=request_id, metrics={"sold": 4})
    assert (status, given["experiments"]) == (200, ["liked"])
    status, given = await say(service, experiment="liked", unit="shop-1", metrics={"sold": 9})
    assert (status, given["experiment_id"] is not None) == (200, True)
    status, refused = await say(service, experiment="liked", unit="shop-2", metrics={"sold": 9})
    assert (status, refused["error"]["code"]) == (404, "unit_not_found")
    status, found = await get(service, "/api/v1/experiments/liked/verdict")
    assert sorted((arm["outcomes"], arm["mean"]) for arm in found["primary"]["variants"]) == [(0, None), (1, 4.0)]
    await service.post("/api/v1/experiments/liked/stop", {})


async def test_from_a_complaint_to_a_training_record(service: Service) -> None:
    ids = await asked(service)
    status, given = await say(service, **{"completion_id": ids["completion_id"]}, thumb="down", text="Too short.")
    assert (status, given["review"] is not None) == (200, True)
    review = given["review"]
    again = await say(service, request_id=ids["request_id"], thumb="down", user="another", text="Rude.")
    assert again[1]["review"] == review
    claim = await service.post("/api/v1/reviews/claim", {"reviewer": "ann", "review": review})
    assert claim[1]["review"]["answer"] == "Paris."
    assert claim[1]["review"]["reasons"]["complaint"]["text"] == "Rude."
    better = "Paris is the capital of France."
    ruling = {"reviewer": "ann", "decision": "edit", "edited": better}
    status, decided = await service.post(f"/api/v1/reviews/{review}/decide", ruling)
    assert (status, decided["state"]) == (200, "waiting")
    status, refused = await service.post(f"/api/v1/reviews/{review}/decide", ruling)
    assert (status, refused["error"]["code"]) == (409, "review_judged")
    ruling = {"reviewer": "bob", "decision": "edit", "edited": better}
    assert (await service.post(f"/api/v1/reviews/{review}/decide", ruling))[1]["state"] == "edited"
    question = {"role": "user", "content": "Capital of France?"}
    rows, _ = await exported(service, "sft")
    assert {"messages": [question, {"role": "assistant", "content": better}]} in rows
    rows, _ = await exported(service, "preference")
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in (better, "Paris."))
    assert {"prompt": [question], "chosen": chosen, "rejected": rejected} in rows
    status, agreement = await get(service, "/api/v1/reviews/agreement")
    assert (status, agreement["pairs"][0]["reviewers"], agreement["items"]) == (200, ["ann", "bob"], 1)


async def test_text_that_no_database_keeps_is_kept_in_a_form_that_it_does(service: Service) -> None:
    ids = await asked(service)
    messages = [{"role": "user", "content": [{"type": "text", "text": "a\u0000b"}]}]
    wish = {"correction": "c\u0000d", "messages": messages, "answer": "e\u0000f", "user": "nul\u0000"}
    status, given = await say(service, request_id=ids["request_id"], **wish)
    assert (status, given["correction"], given["author"]) == (200, "c\ufffdd", "nul\ufffd")
    assert (await say(service, request_id=ids["request_id"], **wish))[1]["repeated"]
    rows, _ = await exported(service, "preference")
    assert [row["rejected"] for row in rows if row["prompt"][0]["content"] == "a\ufffdb"] == [
        [{"role": "assistant", "content": "e\ufffdf"}]
    ]
    for wrong in ([], [{"role": "nobody", "content": "?"}], [{"content": 1}]):
        status, refused = await say(service, request_id=ids["request_id"], thumb="up", messages=wrong)
        assert (status, "messages" in refused["error"]["param"]) == (400, True)


async def exported(service: Service, form: str) -> tuple[list[Any], int]:
    async with service.session.get(f"{service.url}/api/v1/feedback/export?form={form}") as response:
        assert response.status == 200
        lines = (await response.read()).splitlines()
        return [orjson.loads(line) for line in lines], int(response.headers["X-Without-Text"])


async def test_an_answer_that_a_rule_holds_is_shown_when_it_is_approved_and_never_before(service: Service) -> None:
    body = {"model": "fake-leak", "messages": [{"role": "user", "content": "?"}]}
    reviews = []
    for stream in (False, True):
        status, refused = await service.post("/v1/chat/completions", body | {"stream": stream})
        assert (status, refused["error"]["code"]) == (400, "held_for_review")
        assert "1234" not in str(refused)
        reviews.append(refused["error"]["message"].split("/")[-2])
    status, early = await get(service, f"/api/v1/reviews/{reviews[0]}/answer")
    assert (status, early["error"]["code"]) == (409, "review_waiting")
    for reviewer in ("ann", "bob"):
        await service.post(f"/api/v1/reviews/{reviews[0]}/decide", {"reviewer": reviewer, "decision": "approve"})
        ruling = {"reviewer": reviewer, "decision": "reject", "reason": "It leaks."}
        await service.post(f"/api/v1/reviews/{reviews[1]}/decide", ruling)
    status, shown = await get(service, f"/api/v1/reviews/{reviews[0]}/answer")
    assert (status, shown["answer"]) == (200, "The password is 1234.")
    status, refused = await get(service, f"/api/v1/reviews/{reviews[1]}/answer")
    assert (status, refused["error"]["code"]) == (400, "answer_rejected")


async def test_a_flagged_answer_is_delivered_and_queued(service: Service) -> None:
    ids = await asked(service, model="fake-attack")
    found: list[Any] = []
    while not found:  # queued in the background
        found = (await get(service, "/api/v1/reviews?state=waiting&reason=safety"))[1]["data"]
    assert [(each["request_id"], each["answer"]) for each in found] == [(ids["request_id"], "How to attack.")]
    assert found[0]["reasons"]["safety"] == {"rule": "attack"}
    assert (await get(service, "/api/v1/reviews/rev-nothing"))[0] == 404
