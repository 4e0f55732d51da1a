"""Reading ReAct: what models write in many ways is one move; what is unclear is a problem with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.agents.reading import read_move
from pagoda.logic.tools.shelf import built_in

TOOLS = built_in()
ARGUMENTS = {"expression": "37*41"}


@pytest.mark.parametrize(
    ("text", "arguments", "thought"),
    [
        ('Thought: multiply\nAction: calculator\nAction Input: {"expression": "37*41"}', ARGUMENTS, "multiply"),
        ('multiply\nAction: calculator\nAction Input: {"expression": "37*41"}\nObservation: 5', ARGUMENTS, "multiply"),
        ("思考：相乘\n行动：calculator\n行动输入：｛“expression”：“37*41”｝", ARGUMENTS, "相乘"),
        (
            '**Thought:** x\n**Action:** `calculator`\n**Action Input:** ```json\n{"expression": "37*41"}\n```',
            ARGUMENTS,
            "x",
        ),
        ('Action: Calculator({"expression": "37*41"})', ARGUMENTS, ""),
        ("Action: calculator\nAction Input: 37*41", ARGUMENTS, ""),
        ('Action: calculator\nAction Input: {"expression": "37*41', ARGUMENTS, ""),
        ("Action: calculator\nAction Input: {'expression': '37*41'}", ARGUMENTS, ""),
        ('1. Thought: a\n2. Action: calculator\n3. Action Input: {"expression": "37*41"} because', ARGUMENTS, "a"),
        (
            'Thought: a\nAction: calculator\nAction Input: {"expression": "37*41"}\nThought: b\nAction: time_now\n'
            "Action Input: {}\nFinal Answer: 3",
            ARGUMENTS,
            "a",
        ),
    ],
)
def test_a_call_is_read_however_it_is_written(text: str, arguments: Any, thought: str) -> None:
    move = read_move(text, TOOLS)
    assert [(call.tool, call.arguments) for call in move.calls] == [("calculator", arguments)]
    assert move.thought == thought
    assert move.problem is None


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("Thought: I know\nFinal Answer: 42", "42"),
        ("思考：知道了\n最终答案：四十二。", "四十二。"),
        ("**Final Answer:** a\nb", "a\nb"),
        ("Final Answer: ```\n42\n```", "42"),
    ],
)
def test_a_final_answer_is_read(text: str, final: str) -> None:
    assert read_move(text, TOOLS).final == final


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Nothing"),
        ("I would say 42.", "neither"),
        ("Action: fly\nAction Input: {}", "no tool 'fly'"),
        ("Action: date_add\nAction Input: tomorrow", "JSON object"),
        ("Action: calculator", "JSON object"),
        ("行动：飞行", "no tool"),
    ],
)
def test_what_is_unclear_is_a_problem_with_its_reason(text: str, why: str) -> None:
    move = read_move(text, TOOLS)
    assert why in str(move.problem)
    assert not move.calls
    assert move.final is None


@given(
    st.lists(st.sampled_from(["Thought:", "Action: calculator", "Action Input:", "行动：", "{", "}", '"', "\n", "x"]))
)
def test_no_text_brings_the_reader_down(pieces: list[str]) -> None:
    move = read_move("".join(pieces), TOOLS)
    assert (bool(move.calls) + (move.final is not None) + (move.problem is not None)) == 1
