"""``/api/v1/trust`` over HTTP, with scripted models and a collection behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pagoda.application.retrieving import Retrieval
from pagoda.core.settings import Settings
from pagoda.core.types import Call
from pagoda.logic.retrieval.collection import Plan
from tests.services import Service, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUIDE = "The museum was founded in 1884 by Maria Keller. A ticket costs twelve dollars.\n"
SOURCES = [{"name": "guide.md", "text": GUIDE}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    models = [fake_model(text="In 1884."), fake_model("fake-embed", task="embedding")]
    async with running(module_settings, models) as service:
        platform = service.platform
        retrieval = Retrieval(platform.settings, platform.records, lambda: platform.inference)
        folder: Path = tmp_path_factory.mktemp("handbook")
        (folder / "guide.txt").write_text(GUIDE, encoding="utf-8")
        collection = await retrieval.book.ensure("local", "handbook", Plan(model="fake-embed"))
        await retrieval.ingestion.take(collection, [folder], Call(), lambda *_: None)
        yield service


async def score(service: Service, status: int = 200, **body: Any) -> Any:
    found, answer = await service.post("/api/v1/trust/score", body)
    assert found == status, answer
    return answer


async def check(service: Service, status: int = 200, **body: Any) -> Any:
    found, answer = await service.post("/api/v1/trust/check", body)
    assert found == status, answer
    return answer


async def test_an_answer_is_scored_with_its_signals_claims_and_outcome(service: Service) -> None:
    answer = await score(service, question="When was the museum founded?", answer="In 1884.", sources=SOURCES)
    assert answer["judged"]
    assert set(answer["signals"]) == {"token_probability", "consistency", "factuality"}
    assert answer["signals"]["consistency"]["value"] == 1.0
    assert answer["claims"][0]["verdict"] == "supported"
    assert answer["outcome"]["action"] == "keep"


async def test_an_answer_below_the_bar_is_sent_to_the_review_queue(service: Service) -> None:
    policy = {"threshold": 1.0, "below": "review"}
    answer = await score(service, question="When?", answer="In 1999.", sources=SOURCES, policy=policy)
    review = answer["outcome"]["review"]
    async with service.session.get(f"{service.url}/api/v1/reviews/{review}") as response:
        found = await response.json()
    assert (found["answer"], list(found["reasons"])) == ("In 1999.", ["confidence"])


async def test_claims_are_checked_against_texts_and_collections(service: Service) -> None:
    claims = "A ticket costs 12 dollars. The museum was founded in 1884 by Peter Braun. Sure!"
    for where in ({"sources": SOURCES}, {"collection": "handbook"}):
        answer = await check(service, claims=claims, **where)
        assert [each["verdict"] for each in answer["claims"]] == ["supported", "contradicted", "could_not_judge"]
        assert not answer["supported"]
        [span] = answer["claims"][0]["evidence"]
        assert GUIDE[span["start"] : span["end"]] == span["text"] == "A ticket costs twelve dollars."
    assert (await check(service, claims=["A ticket costs 12 dollars."], collection="handbook"))["supported"]
    scored = await score(service, answer="A ticket costs 12 dollars.", collection="handbook", families=["factuality"])
    assert scored["signals"]["factuality"]["supported"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("score", {"answer": ""}, 400, "answer"),
        ("score", {"answer": "x", "families": ["luck"]}, 400, "families"),
        ("score", {"answer": "x", "policy": {"below": "ask"}}, 400, "model"),
        ("score", {"answer": "x", "policy": {"threshold": 2}}, 400, "threshold"),
        ("score", {"answer": "x", "model": "nobody"}, 404, None),
        ("score", {"answer": "x", "judge": "nobody"}, 404, None),
        ("check", {"claims": "It is open."}, 400, None),
        ("check", {"claims": "It is open.", "collection": "nowhere"}, 404, "collection"),
        ("check", {"claims": "…", "sources": SOURCES}, 400, "claims"),
    ],
)
async def test_a_wrong_wish_is_refused(
    service: Service, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    found, answer = await service.post(f"/api/v1/trust/{path}", body)
    assert found == status, answer
    if param is not None:
        assert param in str(answer["error"]["param"])


async def test_a_chat_answer_says_how_sure_it_is_when_asked(service: Service) -> None:
    status, answer = await service.chat("When was the museum founded?", trust=True)
    assert status == 200
    assert answer["trust"]["judged"]
    assert answer["trust"]["missing"] == {"factuality": "there are no sources to hold its claims against"}
    assert answer["trust"]["signals"]["consistency"]["value"] == 1.0
    assert "trust" not in (await service.chat("When was the museum founded?"))[1]
    for more in ({"stream": True}, {"n": 2}):
        status, refused = await service.chat("When?", trust=True, **more)
        assert (status, "trust looks at one whole answer" in refused["error"]["message"]) == (400, True)
    status, refused = await service.chat("When?", trust="yes")
    assert (status, refused["error"]["param"]) == (400, "trust")


async def test_an_answer_from_a_collection_says_how_sure_it_is_when_asked(service: Service) -> None:
    body = {"collection": "handbook", "question": "When was the museum founded?", "floor": -1}
    status, answer = await service.post("/api/v1/rag/ask", body | {"trust": {"threshold": 1.0, "below": "abstain"}})
    assert status == 200, answer
    assert answer["answer"] == answer["trust"]["outcome"]["answer"] == "I am not sure enough of an answer to give one."
    assert (answer["citations"], answer["prompt"], answer["model"]) == ([], None, None), "nobody's words but ours"
    assert answer["trust"]["claims"][0]["verdict"] == "supported"
    assert answer["trust"]["outcome"]["action"] == "abstain"
    kept = (await service.post("/api/v1/rag/ask", body | {"trust": {"threshold": 0}}))[1]
    assert (kept["answer"], kept["prompt"]) == ("In 1884. [1]", "answer-with-sources@1")
    unknown = {"trust": {"below": "ask", "model": "nobody"}, "floor": 1}
    assert (await service.post("/api/v1/rag/ask", body | unknown))[0] == 404, "before anything is asked"
    assert (await service.post("/api/v1/rag/ask", body))[1].get("trust") is None
    status, refused = await service.post("/api/v1/rag/ask", body | {"trust": {}, "stream": True})
    assert (status, refused["error"]["param"]) == (400, "trust")
