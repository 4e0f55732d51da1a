"""Comparisons: asked several at once, gone on without paying twice, and told no bolder than the data are."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pagoda.core.errors import Rejected
from pagoda.core.types import Call
from pagoda.logic.batches.work import Pace
from pagoda.logic.evaluation import scorers
from pagoda.logic.evaluation.page import page, verdict_lines, words_of
from pagoda.logic.evaluation.report import Report, make_report, report_json
from pagoda.logic.evaluation.score import Case, Scorer
from pagoda.logic.evaluation.trials import Trials, Variant
from pagoda.logic.prompts.composing import Composer
from pagoda.logic.prompts.file import read_prompt
from tests.doors import ScriptedDoor

PROMPT = """\
name: {name}
variables: {{text: {{}}, n: {{type: integer, default: 0}}}}
answer: {{type: choice, choices: [yes, no]}}
languages: {{en: {{messages: [{{user: "{name} {{{{n}}}} {{{{text}}}}"}}]}}}}
""".replace("[yes, no]", '["yes", "no"]')


def variant(name: str) -> Variant:
    return Variant(name=name, version=read_prompt(PROMPT.format(name=name)), model="m")


def cases(count: int) -> list[Case]:
    return [
        Case(id=str(n), values={"text": f"case {n}", "n": str(n), "other": 1}, expected="yes") for n in range(count)
    ]


def quiet(stage: str, done: int, total: int) -> None:
    """Takes no note."""


async def carry_out(trials: Trials, door: ScriptedDoor, using: list[Scorer] | None = None) -> Report:
    pace = Pace(8, 8)
    await trials.ask_all(door, Composer(door, "e"), pace, Call(), quiet)
    await trials.score_all(using or [scorers.exact()], pace, Call(), quiet)
    return make_report(trials, [each.name for each in using or [scorers.exact()]], lambda *used: sum(used[1:]), "EUR")


def by_name(text: str, index: int) -> str:
    """``good`` is right always, ``poor`` on one case of three."""
    name, number = text.split()[:2]
    return "yes" if name == "good" or int(number) % 3 == 0 else "no"


async def test_a_clear_winner_is_named_with_its_figures(tmp_path: Path) -> None:
    door = ScriptedDoor(by_name)
    report = await carry_out(Trials([variant("poor"), variant("good")], cases(30), 1, tmp_path), door)
    assert report.winner == 1
    poor, good = report.variants
    assert poor.scorers[0].rate is not None
    assert poor.scorers[0].rate.value == pytest.approx(1 / 3)
    assert (poor.flicker, poor.errors) == (None, 0)
    assert good.scorers[0].rate is not None
    assert good.scorers[0].rate.low == pytest.approx(0.886, abs=0.001)
    assert (good.prompt_tokens, good.completion_tokens, good.cost) == (30 * 4, 30, 30 * 5)
    assert report.pairs[0].difference.interval.value == pytest.approx(2 / 3)
    assert report.pairs[0].adjusted_p < 0.001
    assert len(report.failures) == 20
    assert {failure.variant for failure in report.failures} == {0}
    assert "good is the best" in verdict_lines(report)[0]


async def test_no_winner_where_the_data_support_none(tmp_path: Path) -> None:
    door = ScriptedDoor(by_name)
    report = await carry_out(Trials([variant("poor"), variant("good")], cases(5), 1, tmp_path), door)
    assert report.winner is None
    lines = verdict_lines(report)
    assert lines[0] == "No winner: the data do not support one."
    assert re.search(r"it would take about \d+ cases", lines[1])
    assert "没有胜者" in verdict_lines(report, "zh")[0]


async def test_equal_variants_are_never_told_apart(tmp_path: Path) -> None:
    door = ScriptedDoor(lambda text, index: "yes")
    report = await carry_out(Trials([variant("a"), variant("b"), variant("c")], cases(40), 1, tmp_path), door)
    assert (report.winner, len(report.pairs)) == (None, 3)
    assert "no number of cases" in verdict_lines(report)[1]


async def test_trials_run_at_the_given_concurrency(tmp_path: Path) -> None:
    door = ScriptedDoor(by_name, seconds=0.01)
    await carry_out(Trials([variant("poor"), variant("good")], cases(20), 1, tmp_path), door)
    assert door.most_running == 8
    assert {call.cache for call in door.calls} == {"bypass"}


async def test_what_was_paid_is_not_paid_again(tmp_path: Path) -> None:
    trials = Trials([variant("poor"), variant("good")], cases(20), 2, tmp_path)
    door = ScriptedDoor(by_name)

    class Stop(Exception):
        """Somebody pulls the plug."""

    def plug(stage: str, done: int, total: int) -> None:
        if done >= 10:
            raise Stop

    with pytest.raises(Stop):
        await trials.ask_all(door, Composer(door, "e"), Pace(2, 2), Call(), plug)
    kept = len((tmp_path / "answers.jsonl").read_bytes().splitlines())
    with (tmp_path / "answers.jsonl").open("ab") as file:
        file.write(b'{"torn": ')
    assert 10 <= kept < 80
    again = ScriptedDoor(by_name)
    report = await carry_out(trials, again)
    assert len(again.asked) == 80 - kept
    assert report.complete
    untouched = ScriptedDoor(by_name)
    assert await carry_out(trials, untouched) == report
    assert untouched.asked == []


async def test_an_unfinished_comparison_says_so(tmp_path: Path) -> None:
    trials = Trials([variant("poor"), variant("good")], cases(3), 1, tmp_path)
    report = make_report(trials, ["exact"], lambda *used: 0, "EUR")
    assert not report.complete
    assert verdict_lines(report)[0].startswith("Not all trials")
    assert "Not all trials" in page(report)


async def test_flicker_is_the_share_of_cases_that_come_out_unlike(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def wavering(text: str, index: int) -> str:
        seen[text] = seen.get(text, 0) + 1
        return "yes" if int(text.split()[1]) % 4 or seen[text] % 2 else "no"

    report = await carry_out(Trials([variant("a")], cases(20), 2, tmp_path), ScriptedDoor(wavering))
    assert report.variants[0].flicker == pytest.approx(5 / 20)
    rate = report.variants[0].scorers[0].rate
    assert rate is not None
    assert rate.value == pytest.approx(0.875)
    assert rate.low == pytest.approx(0.6689, abs=0.001), "the interval counts cases, not repeats"
    assert verdict_lines(report) == ["There is one variant; nothing is compared."]


async def test_what_could_not_be_judged_counts_neither_way(tmp_path: Path) -> None:
    def odd(case: Case, output: object) -> bool | None:
        if case.id == "3":
            raise ValueError("broken")
        return None if int(case.id) % 2 else True

    report = await carry_out(
        Trials([variant("a"), variant("b")], cases(10), 1, tmp_path),
        ScriptedDoor(by_name),
        [scorers.function("odd", odd)],
    )
    first = report.variants[0].scorers[0]
    assert (first.judged, first.could_not_judge) == (5, 5)
    assert first.rate is not None
    assert first.rate.value == 1.0
    assert report.pairs[0].difference.cases == 5
    assert {failure.could_not_judge for failure in report.failures} == {True}
    assert any("odd raised ValueError: broken" in failure.why for failure in report.failures)
    assert "NaN" not in json.dumps(report_json(report))


async def test_an_error_is_counted_and_told(tmp_path: Path) -> None:
    def refuse(text: str, index: int) -> str:
        raise Rejected("The engine does not like this.")

    report = await carry_out(Trials([variant("a")], cases(2), 1, tmp_path), ScriptedDoor(refuse))
    assert report.variants[0].errors == 2
    assert report.variants[0].scorers[0].rate is not None
    assert report.variants[0].scorers[0].rate.value == 0
    assert report.failures[0].why == "rejected: The engine does not like this."
    assert not report.failures[0].could_not_judge


class _Checker(HTMLParser):
    """Finds what a report must not have."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_the_page_needs_nothing_else_and_trusts_no_model(tmp_path: Path, language: str) -> None:
    evil = "<script>alert(1)</script><img src=http://x>"
    named = Variant(name="<b>bold</b>", version=read_prompt(PROMPT.format(name="a")), model="m")
    report = await carry_out(Trials([named, variant("b")], cases(4), 1, tmp_path), ScriptedDoor(lambda *_: evil))
    written = page(report, language)
    checker = _Checker()
    checker.feed(written)
    assert checker.addresses == []
    assert not {"script", "img", "link", "b", "iframe"} & checker.tags
    assert {"svg", "table", "details", "style"} <= checker.tags
    assert "&lt;script&gt;" in written
    assert words_of(language)["title"] in written


def test_both_languages_say_everything() -> None:
    assert set(words_of("en")) == set(words_of("zh"))
    for name, words in words_of("en").items():
        assert re.findall(r"{\w+}", words).sort() == re.findall(r"{\w+}", words_of("zh")[name]).sort()
