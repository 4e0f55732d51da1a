"""The parts of ``pagoda bench engine`` that are pure: schedules, prompts, timelines, figures."""

from __future__ import annotations

import itertools
import math
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.application.bench.driving import Measured
from pagoda.application.bench.figures import PERCENTILES, Bound, figures, percentile, spread
from pagoda.application.bench.measuring import Timeline, _Broken, _read_stream
from pagoda.application.bench.plot import check_plot, curve, draw
from pagoda.application.bench.prompts import WORDS, Recipe, Request, read_dataset
from pagoda.application.bench.schedule import Closed, Length, Open, due_times
from pagoda.core.errors import InvalidRequest

SECONDS = st.floats(0, 1e4, allow_nan=False)


def answered(due: float, first: float, gaps: list[float], tokens: int | None = None) -> Timeline:
    times = list(itertools.accumulate([due + first, *gaps]))
    line = Timeline(due, due, times[-1], array("d", times), "done", "", "", 10, tokens or len(times), 0, True)
    assert line.first is not None
    return line


# -- schedules --------------------------------------------------------------------------------------------------------


@given(rate=st.floats(0.1, 1000), requests=st.integers(1, 300))
def test_constant_arrivals_are_evenly_spaced_at_the_asked_rate(rate: float, requests: int) -> None:
    times = list(due_times(Open(rate, "constant"), Length(requests), 0))
    assert len(times) == requests
    assert times[0] == 0
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pytest.approx(
        [1 / rate] * (requests - 1), rel=1e-6
    )


@given(rate=st.floats(0.5, 500), seed=st.integers(0, 2**31))
def test_poisson_arrivals_have_the_asked_rate_and_repeat_with_their_seed(rate: float, seed: int) -> None:
    times = list(due_times(Open(rate), Length(4000), seed))
    assert times == list(due_times(Open(rate), Length(4000), seed))
    assert times == sorted(times)
    # The mean of 4000 exponential gaps lies within 8 of its standard deviations, 1 / (rate * sqrt(4000)).
    assert times[-1] / 4000 == pytest.approx(1 / rate, rel=8 / math.sqrt(4000))
    spacing = np.diff(times)
    assert spacing.std() == pytest.approx(spacing.mean(), rel=0.3), "as irregular as independent arrivals are"


@given(rate=st.floats(1, 200), seconds=st.floats(0.1, 20), seed=st.integers(0, 99))
def test_a_time_limit_ends_the_arrivals(rate: float, seconds: float, seed: int) -> None:
    times = list(due_times(Open(rate), Length(None, seconds), seed))
    assert all(0 <= time < seconds for time in times)
    unlimited = due_times(Open(rate), Length(len(times) + 1), seed)
    assert list(unlimited)[-1] >= seconds, "the next one would have been late"


# -- figures ----------------------------------------------------------------------------------------------------------


@given(values=st.lists(SECONDS, min_size=1, max_size=200), share=st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    assert percentile(sorted(values), share) == pytest.approx(float(np.percentile(values, share)), rel=1e-9, abs=1e-9)


@given(values=st.lists(SECONDS, min_size=1, max_size=200))
def test_a_spread_is_in_order(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    shares = [found[f"p{share}"] for share in PERCENTILES]
    assert [found["min"], *shares, found["max"]] == sorted([found["min"], *shares, found["max"]])
    assert found["mean"] == pytest.approx(sum(values) / len(values), rel=1e-4, abs=1e-9)


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None


LINES = st.lists(
    st.builds(answered, SECONDS, SECONDS, st.lists(st.floats(0.001, 1), max_size=20)), min_size=1, max_size=20
)


@given(lines=LINES, first=st.floats(0, 1e4), gap=st.floats(0, 1), more=st.floats(0, 10))
def test_goodput_only_grows_with_its_bounds(lines: list[Timeline], first: float, gap: float, more: float) -> None:
    def good(bound: Bound) -> int:
        found = figures(Measured(Closed(1), lines, 10.0), bound)["goodput"]["requests"]
        assert isinstance(found, int)
        return found

    strict = good(Bound(first, gap))
    assert strict <= good(Bound(first + more, gap)) <= good(Bound(None, gap)) <= good(Bound()) == len(lines)
    assert strict <= good(Bound(first, gap + more)) <= good(Bound(first)) <= len(lines)


def test_goodput_counts_what_keeps_both_bounds() -> None:
    lines = [answered(0, 0.1, [0.02] * 4), answered(0, 0.9, [0.02] * 4), answered(0, 0.1, [0.2] * 4)]
    failed = Timeline(0)
    failed.fail("HTTP 500")
    found = figures(Measured(Closed(3), [*lines, failed], 2.0), Bound(0.5, 0.05))
    assert found["goodput"]["requests"] == 1
    assert found["goodput"]["requests_per_second"] == 0.5
    assert found["requests_per_second"] == 1.5


def test_figures_add_up() -> None:
    refused = [Timeline(0), Timeline(0)]
    for line in refused:
        line.fail("HTTP 429 with Retry-After")
    lines = [answered(0, 0.5, [0.1] * 9), answered(1, 0.5, [0.1] * 9), *refused, Timeline(2)]
    found = figures(Measured(Open(2.0), lines, 4.0), None)
    assert found["load"] == {"kind": "open", "rate": 2.0, "arrivals": "poisson"}
    assert (found["requests"], found["done"], found["unfinished"]) == (5, 2, 1)
    assert found["failed"] == {"HTTP 429 with Retry-After": 2}
    assert found["output_tokens_per_second"] == 5.0
    assert found["total_tokens_per_second"] == 10.0
    assert found["first_token_seconds"]["p50"] == pytest.approx(0.5)
    assert found["latency_seconds"]["mean"] == pytest.approx(1.4)
    assert found["goodput"] is None
    orjson.dumps(found)


def test_a_token_takes_its_share_of_a_frame_that_holds_several() -> None:
    line = answered(0, 0.5, [0.4], tokens=5)
    assert line.gaps == pytest.approx([0.4])
    assert line.token_seconds == pytest.approx(0.1)


def test_latency_counts_from_when_a_request_was_due() -> None:
    line = answered(1.0, 0.5, [0.1])
    line.sent = 1.4
    assert line.first == pytest.approx(0.5)
    assert line.latency == pytest.approx(0.6)
    assert figures(Measured(Open(1.0), [line], 2.0), None)["sent_late_seconds"]["max"] == pytest.approx(0.4)


# -- one answer -------------------------------------------------------------------------------------------------------


class Response:
    """What of a response is read."""

    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks
        self.content = self

    async def iter_any(self) -> Any:
        for block in self._blocks:
            yield block


def frames(texts: list[str], *, chat: bool = True, usage: bool = True) -> bytes:
    rows: list[dict[str, Any]] = []
    for text in texts:
        rows.append({"choices": [{"delta": {"content": text}} if chat else {"text": text}]})
    rows.append({"choices": [{"delta": {}, "text": "", "finish_reason": "stop"}]})
    if usage:
        details = {"cached_tokens": 3}
        rows.append(
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 11, "prompt_tokens_details": details}}
        )
    body = b"".join(b"data: " + orjson.dumps(row) + b"\r\n\r\n: comment\n\n" for row in rows)
    return body + b"data: [DONE]\n\n"


@given(
    texts=st.lists(st.text(max_size=5), max_size=8),
    chat=st.booleans(),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
async def test_a_stream_reads_the_same_however_the_network_cuts_it(
    texts: list[str], chat: bool, cuts: list[int]
) -> None:
    body = frames(texts, chat=chat)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    line = Timeline(0)
    await _read_stream(Response([body[a:b] for a, b in itertools.pairwise(places)]), line, 0)  # type: ignore[arg-type]
    assert len(line.texts) == sum(bool(text) for text in texts)
    assert (line.prompt_tokens, line.completion_tokens, line.cached_tokens) == (7, 11, 3)
    assert line.counted


async def test_without_usage_every_frame_with_text_counts_as_a_token() -> None:
    line = Timeline(0)
    await _read_stream(Response([frames(["a", "", "b"], usage=False)]), line, 0)  # type: ignore[arg-type]
    assert line.completion_tokens == 2
    assert not line.counted
    line.outcome = "done"
    assert figures(Measured(Closed(1), [line], 1.0), None)["tokens_counted_by"] == "frames"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (frames(["a", "b"])[:40], "stream cut off"),
        (b"", "stream cut off"),
        (b'data: {"error": {"message": "no"}}\n\n', "error in the stream"),
        (b"data: [1]\n\n", "not an OpenAI stream"),
    ],
)
async def test_a_broken_stream_says_how(body: bytes, reason: str) -> None:
    with pytest.raises(_Broken, match=reason):
        await _read_stream(Response([body]), Timeline(0), 0)  # type: ignore[arg-type]


# -- prompts ----------------------------------------------------------------------------------------------------------


@given(
    tokens=st.integers(20, 600), overhead=st.integers(0, 15), number=st.integers(0, 9999), seed=st.integers(0, 2**31)
)
def test_a_text_has_the_words_that_make_its_tokens(tokens: int, overhead: int, number: int, seed: int) -> None:
    recipe = Recipe(overhead=overhead, exact=True)
    text = recipe.text(tokens, number, seed)
    assert len(text.split()) + overhead == tokens
    assert text == recipe.text(tokens, number, seed)
    assert set(text.split()) <= set(WORDS)


@given(shared=st.integers(0, 100), seed=st.integers(0, 2**31))
def test_texts_share_the_asked_prefix_and_no_more_to_speak_of(shared: int, seed: int) -> None:
    rows = [Recipe().text(100, number, seed, shared).split() for number in range(2)]
    common = next((place for place, pair in enumerate(zip(*rows, strict=True)) if len(set(pair)) > 1), 100)
    assert shared <= common < min(shared + 12, 101), "twelve equal words in a row are one chance in 10^24"


def test_words_are_distinct() -> None:
    assert len(WORDS) == len(set(WORDS)) > 100


@pytest.mark.parametrize("endpoint", ["chat", "completions", "embeddings"])
def test_bodies_are_those_of_the_endpoint(endpoint: Any) -> None:
    body = Request(endpoint=endpoint, model="m", input_tokens=5, output_tokens=9, ignore_eos=True).body(0)
    asked = {"chat": "messages", "completions": "prompt", "embeddings": "input"}[endpoint]
    assert {"messages", "prompt", "input"} & set(body) == {asked}
    assert (body.get("max_tokens"), body.get("ignore_eos")) == ((None, None) if asked == "input" else (9, True))


def test_a_dataset_is_asked_in_turn(tmp_path: Path) -> None:
    place = tmp_path / "asked.jsonl"
    place.write_text('{"prompt": "one", "max_tokens": 3}\n\n{"messages": [{"role": "user", "content": "two"}]}\n')
    request = Request(endpoint="chat", model="m", output_tokens=9, dataset=read_dataset(place, "chat"))
    bodies = [request.body(number) for number in range(3)]
    assert bodies[0] == bodies[2]
    assert bodies[0]["messages"] == [{"role": "user", "content": "one"}]
    assert [body["max_tokens"] for body in bodies] == [3, 9, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no rows"),
        ("{", "not JSON Lines"),
        ('{"text": "x"}', "row 1"),
        ('{"prompt": "x"}\n{"prompt": "x", "max_tokens": 0}', "row 2: max_tokens"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "an object with prompt"),
    ],
)
def test_a_wrong_dataset_is_refused_by_its_row(content: str, said: str, tmp_path: Path) -> None:
    place = tmp_path / "asked.jsonl"
    place.write_text(content)
    with pytest.raises(InvalidRequest, match=said):
        read_dataset(place, "completions")


# -- the picture ------------------------------------------------------------------------------------------------------


def test_a_picture_is_drawn_of_both_kinds_of_load(tmp_path: Path) -> None:
    measured = [Measured(load, [answered(0, 0.5, [0.1] * 9)], 2.0) for load in (Closed(8), Closed(1), Open(2.0))]
    data: dict[str, Any] = {"model": "m", "endpoint": "chat", "loads": [figures(each, None) for each in measured]}
    data["loads"].append(figures(Measured(Open(4.0), [Timeline(0)], 2.0), None))  # nothing was answered
    assert curve(data["loads"], "closed", "first_token_seconds", "p50") == [(1.0, 0.5), (8.0, 0.5)]
    assert curve(data["loads"], "open", "first_token_seconds", "p50") == [(2.0, 0.5)]
    for place in (tmp_path / "seen.svg", tmp_path / "seen.png"):
        check_plot(place)
        draw(data, place)
        assert place.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


def test_a_picture_that_cannot_be_drawn_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match=r"must end in \.svg or \.png"):
        check_plot(tmp_path / "seen.pdf")
    monkeypatch.setattr("pagoda.application.bench.plot.find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"pagoda-llm\[plots\]"):
        check_plot(tmp_path / "seen.svg")
