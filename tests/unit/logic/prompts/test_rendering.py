"""Prompts filled in: values by type, languages, and what each technique adds."""

from __future__ import annotations

from typing import Any

import pytest

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.filling import cut, value_from
from pagoda.logic.prompts.library import from_library, library_names
from pagoda.logic.prompts.prompt import Variable
from pagoda.logic.prompts.rendering import render
from tests.unit.logic.prompts.sheets import SENTIMENT

LIBRARY: dict[str, dict[str, Any]] = {
    "answer": {"question": "Q?", "context": "C."},
    "combine-answers": {"question": "Q?", "answers": "A [1]."},
    "refine-answer": {"question": "Q?", "so_far": "A [1].", "passages": "[2] P."},
    "standalone-question": {"question": "Q?", "conversation": "user: P?"},
    "answer-with-sources": {"question": "Q?", "passages": "[1] P."},
    "classify": {"text": "T", "labels": ["a", "b"]},
    "extract": {"text": "T"},
    "maths": {"problem": "1 + 1?"},
    "review-code": {"code": "x = 1"},
    "rewrite": {"text": "T"},
    "summarise": {"text": "T"},
    "translate": {"text": "T"},
}

LIMITED = """\
name: p
variables:
  n: {type: integer, minimum: 1, maximum: 3, default: 1}
  c: {choices: [x, y], default: x}
  t: {max_length: 5, default: ''}
languages: {en: {messages: [{user: "{{n}} {{c}} {{t}}"}]}}
"""


def said(source: str, values: dict[str, Any], language: str | None = None) -> list[tuple[str, str]]:
    return [
        (str(each["role"]), str(each["content"])) for each in render(read_prompt(source), values, language).messages
    ]


def test_task_input_and_requirements_with_examples_as_turns() -> None:
    assert said(SENTIMENT, {"text": "Fine."}) == [
        ("system", "Is the review favourable?\n\nAnswer with one word: good, bad."),
        ("user", "Review: A joy."),
        ("assistant", "good"),
        ("user", "Review: Two hours lost."),
        ("assistant", "bad"),
        ("user", "Review: Fine."),
    ]


def test_examples_within_a_text_in_the_other_language() -> None:
    assert said(SENTIMENT, {"text": "还行。"}, "zh") == [
        ("user", "判断影评，只答一个词：好、坏。\n\n影评：很好看。\n好\n\n影评：还行。")
    ]
    assert said(SENTIMENT, {"text": "还行。"}, "zh-Hans") == said(SENTIMENT, {"text": "还行。"}, "zh")


def test_a_chain_of_thought_asks_for_four_steps_and_shows_them_in_examples() -> None:
    source = SENTIMENT.replace("techniques:", "techniques:\n  chain-of-thought: {}")
    turns = said(source, {"text": "Fine."})
    assert "Work in four steps" in turns[0][1]
    assert turns[2] == ("assistant", "It says joy.\nAnswer: good")
    last = said(source, {"text": "还行。"}, "zh")[-1][1]
    assert "请分四步完成" in last
    assert "答案：好" in last


def test_structured_output_shows_its_schema_and_techniques_go_together() -> None:
    both = "techniques:\n  chain-of-thought: {}\n  structured-output: {schema: {type: object}}"
    system = said(SENTIMENT.replace("techniques:", both), {"text": "Fine."})[0][1]
    assert system.index("Work in four steps") < system.index('{"type":"object"}')


@pytest.mark.parametrize(
    ("values", "said_of"),
    [
        ({}, "The prompt sentiment needs the variable 'text' (The review)."),
        ({"text": 5}, "The variable 'text' of sentiment must be a string, not int."),
        ({"text": None}, "must be a string, not null"),
        ({"text": "x", "labels": "good"}, "must be a list, not str"),
        ({"text": "x", "labels": [["nested"]]}, "must be a list"),
        ({"text": "x", "strict": "yes"}, "must be true or false"),
        ({"txt": "x"}, "sentiment has no variable 'txt'; did you mean 'text'?"),
        ({"text": "x", "__class__": "x"}, "no variable '__class__'"),
    ],
)
def test_a_missing_or_mistyped_variable_is_named(values: dict[str, Any], said_of: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        render(read_prompt(SENTIMENT), values)
    assert said_of in refused.value.message
    assert refused.value.param is not None


def test_limits_are_held_or_a_text_is_cut_by_its_rule() -> None:
    source = LIMITED
    assert said(source, {"n": 2, "c": "y", "t": "12345"}) == [("user", "2 y 12345")]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"n": 4}, "at most 3"),
        ({"n": 0}, "at least 1"),
        ({"n": True}, "integer"),
        ({"c": "z"}, "may be x, y"),
        ({"t": "123456"}, "6 characters; 5 may be"),
    ]
    for wrong, about in refused:
        with pytest.raises(InvalidRequest, match=about):
            said(source, wrong)
    trimmed = source.replace("{max_length: 5,", "{max_length: 5, trim: middle,")
    assert said(trimmed, {"t": "abcdefgh"}) == [("user", "1 x ab…gh")]


def test_cutting_leaves_the_length_that_was_asked_for() -> None:
    assert [cut("abcdef", length, "end") for length in (0, 1, 2, 5, 6)] == ["", "…", "a…", "abcd…", "abcdef"]
    assert (cut("abcdef", 3, "start"), cut("abcdef", 4, "middle")) == ("…ef", "ab…f")


def test_values_written_as_text_take_their_type() -> None:
    kinds = {"integer": ("3", 3), "number": ("0.5", 0.5), "boolean": ("Yes", True), "list": ("a, b", ["a", "b"])}
    for kind, (text, value) in kinds.items():
        assert value_from(Variable(name="v", type=kind), text) == value  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="'v' must be an integer, not 'many'"):
        value_from(Variable(name="v", type="integer"), "many")


def test_a_language_it_does_not_speak_is_refused() -> None:
    with pytest.raises(NotFound, match="does not speak 'fr'; it has: en, zh"):
        render(read_prompt(SENTIMENT), {"text": "x"}, "fr")


@pytest.mark.parametrize("name", library_names())
def test_every_packaged_prompt_speaks_both_languages(name: str) -> None:
    version = from_library(name)
    assert version is not None
    assert list(version.prompt.languages) == ["en", "zh"]
    for language in ("en", "zh"):
        messages = render(version, LIBRARY[name], language).messages
        text = "\n".join(str(message["content"]) for message in messages)
        assert "{{" not in text
        assert ("请" in text or "只" in text or "你" in text) == (language == "zh")
    assert version.prompt.description
    assert version.digest
