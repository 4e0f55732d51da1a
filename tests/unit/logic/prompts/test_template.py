"""Templates hold names and nothing that could be executed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.logic.prompts.template import compile_template


def fill(source: str, **values: object) -> str:
    return compile_template(source, {"hello": "Hello {{name}}", "twice": "{{> hello}}, {{> hello}}"}).fill(values)


def test_variables_blocks_parts_and_remarks() -> None:
    assert fill("{{> twice}}!", name="Ada") == "Hello Ada, Hello Ada!"
    assert fill("{{#items}}- {{.}}\n{{/items}}{{^items}}none{{/items}}", items=["a", "b"]) == "- a\n- b\n"
    assert fill("{{#items}}- {{.}}\n{{/items}}{{^items}}none{{/items}}", items=[]) == "none"
    assert fill("{{#on}}yes {{name}}{{/on}}{{^on}}no{{/on}}", on=True, name="x") == "yes x"
    assert fill("{{#on}}yes{{/on}}{{^on}}no{{/on}}", on=False) == "no"
    assert fill("a{{! not shown }}b \\{{c}}") == "ab {{c}}"
    assert fill(
        "{{n}} {{f}} {{whole}} {{yes}} {{list}} {{nothing}}|", n=0, f=0.5, whole=2.0, yes=True, list=[1, "b"]
    ) == ("0 0.5 2 true 1, b |")


@settings(deadline=None)
@given(st.text(), st.text())
def test_what_a_variable_holds_is_never_read_as_a_template(before: str, held: str) -> None:
    plain = before.replace("{", "(").replace("\\", "/")
    assert compile_template(plain + "{{a}}" + "{{#b}}{{.}}{{/b}}").fill({"a": held, "b": [held]}) == plain + held + held


@pytest.mark.parametrize(
    "held", ["{{secret}}", "{{> hello}}", "{{#secret}}x{{/secret}}", "{% for %}", "${secret}", "{0}"]
)
def test_template_words_in_a_variable_stay_text(held: str) -> None:
    assert fill("<{{text}}>", text=held, secret="leaked", name="n") == f"<{held}>"


@settings(deadline=None)
@given(st.text(alphabet="{}#/^>!. ab_\\\n", max_size=60))
def test_any_text_is_a_template_or_is_refused_with_its_place(source: str) -> None:
    refusal = ""
    try:
        compile_template(source, {"a": "b"}).fill({"a": "x", "b": "x"})
    except InvalidRequest as error:
        refusal = error.message
    assert refusal == "" or re.search(r"line \d+, column \d+", refusal)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{a.__class__}}", "line 1, column 1: 'a.__class__' is not the name"),
        ("{{a.__class__.__mro__[1].__subclasses__()}}", "no attributes, calls or expressions"),
        ("{{self._TemplateReference__context}}", "is not the name"),
        ("x\n  {{ open('/etc/passwd') }}", "line 2, column 3"),
        ("one\ntwo {{name", "line 2, column 5: '{{' is not closed"),
        ("{{#a}}", "'{{/a}}' is missing"),
        ("{{/a}}", "closes nothing"),
        ("{{#a}}{{/b}}", "a is open"),
        ("{{.}}", "stands only inside"),
        ("{{> nothing}}", "there is no part 'nothing'; there are: hello, twice"),
        ("{{#a}}" * 17, "deep in one another"),
    ],
)
def test_what_is_not_of_the_language_is_refused_with_its_place(source: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fill(source)
    assert said in refused.value.message


def test_a_part_that_includes_itself_is_named_with_its_way() -> None:
    with pytest.raises(InvalidRequest, match=re.escape("includes itself (a > b > a)")):
        compile_template("{{> a}}", {"a": "{{> b}}", "b": "{{> a}}"})


def test_parts_and_lists_cannot_grow_without_bound() -> None:
    parts = {f"p{level}": f"{{{{> p{level + 1}}}}}" * 8 for level in range(12)} | {"p12": "x" * 8}
    with pytest.raises(InvalidRequest, match="shorten it"):
        compile_template("{{> p0}}", parts)
    lists = compile_template("{{#a}}{{#b}}{{#c}}x{{/c}}{{/b}}{{/a}}")
    many = list(range(100))
    with pytest.raises(InvalidRequest, match="Lists inside lists"):
        lists.fill({"a": many, "b": many, "c": many})
