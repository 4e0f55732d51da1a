"""Scorers that look at the text alone: equality, containment, patterns, numbers, JSON, and any Python function.

Not here: overlap of words (``overlap``), likeness of meaning (``similarity``), a model's judgement (``judge``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Json
from pagoda.logic.evaluation.score import UNREAD, Case, Metric, Output, Score, Scorer, could_not_judge
from pagoda.logic.inference.output import check_schema
from pagoda.logic.prompts.answers import find_json, last_number

_PUNCTUATION = " \t\r\n.。,，!！?？;；:：\"'“”‘’"
YES, NO = Score(1.0, True), Score(0.0, False)


def plain(text: str, *, case_sensitive: bool = False) -> str:
    """A text as it is compared: one form of each letter, single blanks, no punctuation around it (and no capitals)."""
    told = " ".join(unicodedata.normalize("NFKC", text).split()).strip(_PUNCTUATION)
    return told if case_sensitive else told.casefold()


def exact(*, case_sensitive: bool = False) -> Scorer:
    """The answer is what is expected, but for white space and punctuation around it (and capitals)."""

    def judge(case: Case, output: Output) -> Score:
        if case.expected is None:
            return could_not_judge("nothing is expected of this case")
        if output.said is None:
            return UNREAD
        return _verdict(
            plain(output.said, case_sensitive=case_sensitive) == plain(case.expected, case_sensitive=case_sensitive)
        )

    return Metric("exact", judge)


def contains(*, case_sensitive: bool = False) -> Scorer:
    """What is expected stands somewhere in the answer."""

    def judge(case: Case, output: Output) -> Score:
        if case.expected is None:
            return could_not_judge("nothing is expected of this case")
        if output.said is None:
            return UNREAD
        return _verdict(
            plain(case.expected, case_sensitive=case_sensitive) in plain(output.said, case_sensitive=case_sensitive)
        )

    return Metric("contains", judge)


def regex(pattern: str) -> Scorer:
    """The pattern is found in the answer. Raises ``InvalidRequest`` for what is no pattern."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(f"The pattern {pattern[:80]!r} is not a regular expression: {error}.") from error

    def judge(case: Case, output: Output) -> Score:
        del case
        return UNREAD if output.said is None else _verdict(compiled.search(output.said) is not None)

    return Metric("regex", judge)


def numeric(*, tolerance: float = 0.0) -> Scorer:
    """The last number of the answer is the last one of what is expected, within a relative tolerance."""
    allowed = Decimal(repr(tolerance))

    def judge(case: Case, output: Output) -> Score:
        wanted = None if case.expected is None else last_number(case.expected)
        if wanted is None:
            return could_not_judge("no number is expected of this case")
        found = None if output.said is None else last_number(output.said)
        if found is None:
            return Score(0.0, False, "no number was found in the answer")
        off = abs(Decimal(found) - Decimal(wanted))
        return _verdict(off <= allowed * max(abs(Decimal(wanted)), Decimal(1)), f"{found}, expected {wanted}")

    return Metric("numeric", judge)


def json_valid(schema: Mapping[str, Json] | None = None) -> Scorer:
    """The answer is JSON, bare or in a fence, and valid against a schema where one is given."""
    if schema is not None:
        check_schema(schema, "scorer json")
    validator = None if schema is None else Draft202012Validator(schema)

    def judge(case: Case, output: Output) -> Score:
        del case
        found = None if output.said is None else find_json(output.said)
        if found is None:
            return Score(0.0, False, "the answer is not JSON")
        if validator is None:
            return YES
        broken = best_match(validator.iter_errors(orjson.loads(found)))
        return YES if broken is None else Score(0.0, False, broken.message[:300])

    return Metric("json", judge)


def function(name: str, judge: Callable[[Case, Output], bool | float | Score | None]) -> Scorer:
    """Any Python function of case and output: true or false, a number (0.5 and more is a success), or a ``Score``.

    ``None`` means that it cannot tell.
    """

    def scored(case: Case, output: Output) -> Score:
        said = judge(case, output)
        if isinstance(said, Score):
            return said
        if said is None:
            return could_not_judge(f"{name} could not tell")
        return _verdict(said) if isinstance(said, bool) else Score(float(said), said >= 0.5)

    return Metric(name, scored)


def _verdict(passed: bool, reason: str = "") -> Score:
    return Score(float(passed), passed, reason)
