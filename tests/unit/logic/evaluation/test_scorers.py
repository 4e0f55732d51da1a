"""Scorers: what counts as right, and what could not be judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pagoda.core.errors import InvalidRequest, Unavailable
from pagoda.core.types import Call
from pagoda.logic.evaluation import scorers
from pagoda.logic.evaluation.judge import Judge
from pagoda.logic.evaluation.naming import Means, scorer_from
from pagoda.logic.evaluation.score import Case, Output, Score, Scorer, judged
from tests.doors import ScriptedDoor


def means(door: ScriptedDoor | None = None, language: str = "en") -> Means:
    return Means(door=door or ScriptedDoor(), call=Call(), judge_model="j", embedding_model="e", language=language)


async def passes(scorer: Scorer, text: str, expected: str | None = None, **output: object) -> bool | None:
    said = Output(text=text, **output)  # type: ignore[arg-type]
    return (await judged(scorer, Case(id="1", values={}, expected=expected), said)).passed


@pytest.mark.parametrize(
    ("scorer", "text", "expected", "passed"),
    [
        ("exact", " Positive.\n", "positive", True),
        ("exact", "positively", "positive", False),
        ("exact", "正面。", "正面", True),
        ("exact", "x", None, None),
        ("contains", "I think it is Positive!", "positive", True),
        ("contains", "negative", "positive", False),
        ("regex:^\\d+$", "42", None, True),
        ("regex:^\\d+$", "42 apples", None, False),
        ("numeric", "so 1,250.0 in all", "… #### 1250", True),
        ("numeric", "1251", "1250", False),
        ("numeric:0.01", "1251", "1250", True),
        ("numeric", "none", "1250", False),
        ("numeric", "5", "five", None),
        ("json", '```json\n{"a": 1}\n```', None, True),
        ("json", "a: 1", None, False),
        ("bleu", "the cat sat on the mat", "the cat sat on the mat", True),
        ("bleu", "dogs run", "the cat sat on the mat", False),
        ("bleu", "今天天气很好", "今天天气很好", True),
        ("rouge", "the cat sat", "the cat sat on the mat", True),
        ("rouge", "今天天气好", "今天天气很好", True),
        ("rouge2", "no match here", "今天天气很好", False),
        ("similarity", "abc abc", "cba", True),
        ("similarity:0.9", "abc", "xyz", False),
    ],
)
async def test_named_scorers(scorer: str, text: str, expected: str | None, passed: bool | None) -> None:
    assert await passes(scorer_from(scorer, means()), text, expected) is passed


async def test_what_a_prompt_found_is_what_counts() -> None:
    exact = scorers.exact()
    assert await passes(exact, "Steps... Answer: good", "good", answer="good", reads_answer=True)
    assert await passes(exact, "good", "good", answer=None, reads_answer=True) is False, "found nothing: no success"


async def test_json_is_held_against_a_schema(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "object", "required": ["a"]}), encoding="utf-8")
    scorer = scorer_from(f"json:{path}", means())
    assert await passes(scorer, '{"a": 1}') is True
    assert await passes(scorer, '{"b": 1}') is False


async def test_any_python_function_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def half(case, output):\n    return 0.5 if output.text else None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        scorer = scorer_from("python:mine:half", means())
        assert await passes(scorer, "x") is True
        assert await passes(scorer, "") is None
    finally:
        sys.modules.pop("mine", None)
    both = scorers.function("both", lambda case, output: Score(3.0, False, "why"))
    assert await passes(both, "x") is False


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "text", ValueError("broken"), ZeroDivisionError()])
async def test_a_metric_that_raises_or_gives_nonsense_could_not_judge(bad: object) -> None:
    def judge(case: Case, output: Output) -> float:
        if isinstance(bad, Exception):
            raise bad
        return bad  # type: ignore[return-value]

    score = await judged(scorers.function("bad", judge), Case(id="1", values={}), Output(text="x"))
    assert (score.value, score.passed) == (None, None)
    assert "bad" in score.reason


async def test_an_engine_that_is_gone_is_no_judgement() -> None:
    def gone(text: str, index: int) -> str:
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        await passes(scorer_from("judge:is polite", means(ScriptedDoor(gone))), "x")


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ("It is polite.\nVerdict: PASS", True),
        ("Rude.\nverdict: fail.", False),
        ("Hm.\nVerdict: UNSURE", None),
        ("I like turtles.", None),
        ("", None),
        ("Verdict: PASS or FAIL", None),
    ],
)
async def test_a_judge_that_answers_nonsense_could_not_judge(said: str, passed: bool | None) -> None:
    door = ScriptedDoor(lambda text, index: said)
    score = await judged(
        scorer_from("judge:is polite", means(door)), Case(id="1", values={}), Output(text="Hello", question="Hi?")
    )
    assert score.passed is passed
    assert said[:5] in score.reason
    assert [call.purpose for call in door.calls] == ["judge"]
    assert "is polite" in str(door.asked[0].messages)


async def test_a_judge_speaks_chinese() -> None:
    door = ScriptedDoor(lambda text, index: "很礼貌。\n判定：PASS")
    assert await passes(scorer_from("judge:有礼貌", means(door, "zh")), "您好") is True
    assert "标准：有礼貌" in str(door.asked[0].messages)


@pytest.mark.parametrize(
    ("first", "second", "preferred"),
    [
        ("FIRST", "SECOND", "first"),
        ("SECOND", "FIRST", "second"),
        ("TIE", "TIE", "tie"),
        ("FIRST", "FIRST", None),
        ("UNSURE", "SECOND", None),
        ("nonsense", "TIE", None),
    ],
)
async def test_two_answers_are_compared_in_both_orders(first: str, second: str, preferred: str | None) -> None:
    said = iter([first, second])
    door = ScriptedDoor(lambda text, index: f"Verdict: {next(said)}")
    judge = Judge(door, "j", "is short", Call())
    assert (await judge.prefer("Q?", "one", "two"))[0] == preferred
    asked = [str(request.messages[-1]["content"]) for request in door.asked if request.messages]
    assert asked[0].index("one") < asked[0].index("two")
    assert asked[1].index("two") < asked[1].index("one")


@pytest.mark.parametrize(
    ("said", "passed"),
    [(("FIRST", "SECOND"), True), (("TIE", "TIE"), True), (("SECOND", "FIRST"), False), (("TIE", "FIRST"), None)],
)
async def test_an_answer_is_held_against_what_is_expected(said: tuple[str, str], passed: bool | None) -> None:
    verdicts = iter(said)
    door = ScriptedDoor(lambda text, index: f"Verdict: {next(verdicts)}")
    assert await passes(scorer_from("prefer:is short", means(door)), "one", "two") is passed
    assert await passes(scorer_from("prefer:is short", means(door)), "one") is None, "nothing is expected"


@pytest.mark.parametrize(
    "wrong", ["nothing", "regex", "regex:(", "numeric:much", "judge", "python:x", "python:no.such:f", "json:/none"]
)
def test_a_scorer_that_does_not_exist_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidRequest):
        scorer_from(wrong, means())
