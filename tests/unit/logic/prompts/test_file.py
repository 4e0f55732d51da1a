"""Prompt files: what they say, and every mistake told by line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagoda.core.errors import InvalidRequest
from pagoda.logic.prompts.file import read_prompt, read_prompt_file
from tests.unit.logic.prompts.sheets import SENTIMENT


def test_a_file_is_read_whole() -> None:
    version = read_prompt(SENTIMENT)
    prompt = version.prompt
    assert (prompt.name, version.version, list(prompt.languages)) == ("sentiment", 1, ["en", "zh"])
    assert [(each.name, each.type, each.required) for each in prompt.variables] == [
        ("text", "string", True),
        ("labels", "list", False),
        ("strict", "boolean", False),
    ]
    assert prompt.techniques.few_shot is not None
    assert [example.answer for example in prompt.techniques.few_shot.examples] == ["good", "bad", "好", "bad"]
    assert prompt.settings.stop == ("\n",)


def test_the_digest_follows_what_it_says_not_how_it_is_written() -> None:
    said = read_prompt(SENTIMENT).digest
    assert (
        read_prompt("# a remark\n" + SENTIMENT.replace("name: sentiment", "version: 7\nname: sentiment")).digest == said
    )
    assert read_prompt(SENTIMENT.replace("A joy", "A delight")).digest != said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("trim: end", "trim: ends", "line 4, column 36: variables.text.trim: Input should be 'start'"),
        ("labels: {type", "labels {type", "line 5, column 30: this is not YAML"),
        ("settings:", "setings:", "line 7, column 1: there is no setings"),
        ("max_tokens: 8", "max_tokens: many", "line 7, column 28: settings.max_tokens"),
        ("    task: Is", "    tusk: Is", "line 19, column 5: there is no languages.en.tusk"),
        ("answer: {type", "name: again\nanswer: {type", "line 16, column 1: 'name' stands there twice"),
        ("name: sentiment", "name: &x sentiment\ntags: [*x]", "line 2, column 8: anchors and aliases"),
        ("name: sentiment", "name: Two Words", "line 1, column 1: name: String should match"),
        ("{{text}}", "{{txt}}", "en: 'txt' is used, but there is no such variable"),
        ("choices: labels", "choices: text", "'text' is not a variable of the type list"),
        ("{text: A joy.", "{txt: A joy.", "Example 1: sentiment has no variable 'txt'; did you mean 'text'?"),
        ("{text: So dull., ", "{", "Example 4 of sentiment lacks the variable 'text'"),
        ("zh: [好, 坏]", "fr: [bon]", "The default of 'labels' must have a value for en, zh"),
        ("default: false", "default: maybe", "must be true or false"),
        ("language: zh}", "language: fr}", "which sentiment does not speak"),
        ("{{> examples}}", "{{> exmples}}", "there is no part 'exmples'"),
        (
            "count: 2",
            "count: 2\n    by: labels\n    choose: similar",
            "name a string variable in techniques.few-shot.by",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(before: str, after: str, said: str) -> None:
    assert before in SENTIMENT
    with pytest.raises(InvalidRequest) as refused:
        read_prompt(SENTIMENT.replace(before, after, 1), "s.yaml")
    assert said in refused.value.message
    assert "s.yaml" in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "just words",
        "a: [",
        "name: x",
        "\t- x",
        "? {a: b}\n: c",
        "a: 2024-13-99",
        "a: !!python/name:os.system",
        "[" * 5000,
    ],
)
def test_what_is_no_prompt_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_prompt(text)


def test_a_part_of_a_file_cannot_include_itself() -> None:
    loop = SENTIMENT.replace(
        "    task: Is the review favourable?", '    task: "{{> a}}"\n    parts: {a: "{{> b}}", b: "{{> a}}"}'
    )
    with pytest.raises(InvalidRequest, match="the part a includes itself"):
        read_prompt(loop)


def test_a_schema_that_is_none_is_refused() -> None:
    wrong = SENTIMENT.replace("techniques:", "techniques:\n  structured-output: {schema: {type: strange}}")
    with pytest.raises(InvalidRequest, match=r"techniques\.structured-output"):
        read_prompt(wrong)


def test_other_encodings_are_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes("name: x\ndescription: 影评\n".encode("gbk"))
    with pytest.raises(InvalidRequest, match="line 2: this is not UTF-8"):
        read_prompt_file(path)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_prompt_file(tmp_path / "nothing.yaml")
    path.write_bytes(b"\xef\xbb\xbf" + SENTIMENT.encode())
    assert read_prompt_file(path).prompt.name == "sentiment"
