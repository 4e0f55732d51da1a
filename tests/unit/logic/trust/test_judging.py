"""Claims held against sources: by the judge that comes with Pagoda, and by a served model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Call
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.trust.checking import Checker, Checks, merge
from pagoda.logic.trust.claims import MOST_CLAIMS
from pagoda.logic.trust.evidence import FEATURES, MOST_SENTENCES, Library, excerpt
from pagoda.logic.trust.judging import LocalJudge, ServedJudge, local_weights
from pagoda.logic.trust.subject import Source
from tests.doors import ScriptedDoor

ENGLISH = Source(
    name="guide.md",
    text="The museum was founded in 1884 by Maria Keller. It is closed on Mondays. A ticket costs twelve dollars.\n\n"
    "Peter Braun has led the museum since 2011.",
    start=100,
    document="doc-1",
)
CHINESE = Source(name="指南.txt", text="博物馆由王明于1884年创办，位于上海。周一不开放。馆内周五九点开门。门票三十元。")
CALL = Call(tenant="blue", request_id="req-1")


def nobody() -> None:
    raise AssertionError("no collection is searched here")


async def verdicts(text: str, *sources: Source) -> list[str | None]:
    return [each.judgement.verdict for each in (await check(text, *sources)).claims]


async def check(text: str, *sources: Source) -> Checks:
    checker = Checker(nobody)  # type: ignore[arg-type]
    return await checker.check(text, sources or (ENGLISH, CHINESE), LocalJudge(local_weights()), CALL)


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ("The museum was founded in 1884 by Maria Keller.", "supported"),
        ("Maria Keller founded the museum in 1884.", "supported"),
        ("A ticket costs 12 dollars.", "supported"),
        ("The museum was founded in 1894 by Maria Keller.", "contradicted"),
        ("The museum was founded in 1884 by Peter Braun.", "contradicted"),
        ("It is not closed on Mondays.", "contradicted"),
        ("A ticket costs twenty dollars.", "contradicted"),
        ("Elephants drink much water in summer.", "not_found"),
        ("博物馆由王明于1884年创办。", "supported"),
        ("门票30元。", "supported"),
        ("博物馆由王明于1894年创办，位于上海。", "contradicted"),
        ("周一开放。", "contradicted"),
        ("馆内九点开门。", "supported"),
        ("馆内8点开门。", "contradicted"),
        ("大象夏天喝很多水。", "not_found"),
    ],
)
async def test_the_local_judge_tells_supported_contradicted_and_not_found(claim: str, verdict: str) -> None:
    assert await verdicts(claim) == [verdict]


async def test_references_of_a_source_are_no_numbers_of_a_claim_that_quotes_it() -> None:
    source = Source(name="page", text="The bridge was built of stone [7].\n\nIt carries [2-3] two roads in 4 lanes.")
    assert await verdicts("The bridge was built of stone (7). It carries (2-3) two roads in 4 lanes.", source) == [
        "supported",
        "supported",
    ]
    assert await verdicts("The bridge was built of stone (8).", source) != ["supported"]


async def test_evidence_is_exactly_the_characters_of_its_document() -> None:
    checks = await check("A ticket costs 12 dollars. Peter Braun has led the museum since 2011.")
    [first, second] = checks.claims
    [span] = first.to_json()["evidence"]
    assert (span["source"], span["document"], span["text"]) == ("guide.md", "doc-1", "A ticket costs twelve dollars.")
    assert ENGLISH.text[span["start"] - 100 : span["end"] - 100] == span["text"]
    assert second.to_json()["evidence"][0]["text"] == "Peter Braun has led the museum since 2011."
    assert (second.claim.start, second.claim.end) == (27, 69)


async def test_what_claims_nothing_is_not_judged_and_nothing_is_refused() -> None:
    [greeting, claim] = (await check("Sure! A ticket costs 12 dollars.")).claims
    assert (greeting.to_json()["verdict"], claim.judgement.verdict) == ("could_not_judge", "supported")
    with pytest.raises(InvalidRequest, match="no claim"):
        await check(" … ")
    with pytest.raises(InvalidRequest, match="sources are empty"):
        await check("It is open.", Source(name="x", text=" \n"))


@pytest.mark.parametrize(
    ("text", "supported"),
    [
        ("A ticket costs 12 dollars. Is it?", True),
        ("A ticket costs 12 dollars. Elephants drink much water in summer.", False),
        ("Is it open? 门票多少钱？", None),
    ],
)
async def test_all_is_supported_only_where_something_was_judged(text: str, supported: bool | None) -> None:
    assert (await check(text)).supported is supported


async def test_claims_beyond_the_most_are_told_as_not_judged() -> None:
    sentence = "A ticket costs 12 dollars. "
    whole, longer = await check(sentence * MOST_CLAIMS), await check(sentence * (MOST_CLAIMS + 1))
    assert (len(whole.claims), whole.cut, whole.supported) == (MOST_CLAIMS, None, True)
    assert (len(longer.claims), longer.cut, longer.supported) == (MOST_CLAIMS, MOST_CLAIMS * len(sentence), None)


async def test_a_claim_without_end_is_told_as_not_judged() -> None:
    checks = await check("A ticket costs 12 dollars. " + "A ticket costs 12 dollars " * 200)
    [first, second] = checks.claims
    assert (first.judgement.verdict, second.judgement.verdict, checks.supported) == ("supported", None, None)
    assert "more than 4000 characters" in second.judgement.reason


def test_sources_are_read_up_to_the_most_sentences_together() -> None:
    sources = [Source(name=name, text="A b. " * (MOST_SENTENCES - 1)) for name in "xyz"]
    library = Library(sources)
    assert [len([1 for each in library.sentences if each.source == at]) for at in range(3)] == [
        MOST_SENTENCES - 1,
        1,
        0,
    ]


@given(st.text(max_size=60), st.text(max_size=120), st.text(max_size=30))
def test_features_stay_in_their_bounds_for_any_text(claim: str, text: str, question: str) -> None:
    evidence = Library([Source(name="x", text=text)]).look_up(claim, question)
    assert tuple(evidence.features) == FEATURES
    assert all(-1 <= value <= 1 for value in evidence.features.values())
    for span in evidence.spans:
        assert text[span.start : span.end] == span.to_json()["text"]
    assert LocalJudge(local_weights()).read(evidence).verdict is not None


async def test_a_served_model_judges_and_what_it_says_unreadably_is_no_verdict() -> None:
    def say(text: str, index: int) -> str:
        for word, said in (
            ("1884", "It says so.\nVerdict: SUPPORTED"),
            ("1894", "Verdict: CONTRADICTED"),
            ("lions", "Hm."),
        ):
            if f"Claim: It was founded in {word}" in text or f"Claim: The museum keeps {word}" in text:
                return said
        return "判定：UNSURE" if "说法：" in text else "Verdict: NOT_FOUND"

    door = ScriptedDoor(say, context=100_000)
    checker = Checker(nobody)  # type: ignore[arg-type]
    text = (
        "It was founded in 1884. It was founded in 1894. The museum keeps lions. The museum has a garden. 博物馆很大。"
    )
    checked = await checker.check(text, (ENGLISH, CHINESE), ServedJudge(door, "judge"), CALL, question="Since when?")
    said = checked.to_json()["claims"]
    words = ["supported", "contradicted", "could_not_judge", "not_found", "could_not_judge"]
    assert [each["verdict"] for each in said] == words
    assert [each["supported"] for each in said] == [1.0, 0.0, None, 0.0, None]
    assert said[2]["reason"] == "the judge said: Hm."
    assert all((call.purpose, call.parent, call.tenant) == ("judge", "req-1", "blue") for call in door.calls)
    assert "Question" not in str(door.asked[0].messages)
    assert "The claim answers the question: Since when?" in str(door.asked[0].messages)


def test_long_sources_are_cut_to_what_the_answer_speaks_of() -> None:
    source = Source(
        name="x", text="Nothing of that. " * 50 + "The key is made of brass. It is old. " + "More noise. " * 50
    )
    shown = excerpt([source], "What is the key made of?", 80)
    assert "The key is made of brass." in shown
    assert len(shown) <= 80
    assert excerpt([ENGLISH], "x", 10_000) == ENGLISH.text


def test_passages_that_overlap_are_one_source() -> None:
    text = "abcdefghij"
    common = Passage(document="d", source="f", title="", heading="", start=0, end=0, text="")
    places = ((0, 4), (3, 6), (8, 10))
    passages = [replace(common, start=start, end=end, text=text[start:end]) for start, end in places]
    assert [(each.start, each.text) for each in merge(passages)] == [(0, "abcdef"), (8, "ij")]


def test_passages_found_in_any_order_lose_nothing() -> None:
    text = "abcdefghij"
    common = Passage(document="d", source="f", title="", heading="", start=0, end=0, text="")
    passages = [
        replace(common, document=document, start=start, end=end, text=text[start:end])
        for document, start, end in (("d", 3, 6), ("e", 0, 2), ("d", 8, 10), ("d", 0, 4), ("d", 1, 2), ("e", 1, 5))
    ]
    found = [(each.document, each.start, each.text) for each in merge(passages)]
    assert found == [("d", 0, "abcdef"), ("d", 8, "ij"), ("e", 0, "abcde")]


async def test_the_searches_of_one_text_are_one_request() -> None:
    calls = []

    class Finding:
        async def search(self, collection: str, query: str, call: Call, *, limit: int) -> list[object]:
            calls.append(call)
            return []

    text = "The museum opened in 1884. It has three floors. The entry is free."
    await Checker(Finding).find("handbook", "When?", text, CALL)  # type: ignore[arg-type]
    assert [call.parent for call in calls] == [None, *[CALL.request_id] * 3]
