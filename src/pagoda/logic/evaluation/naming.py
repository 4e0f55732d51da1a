"""Scorers by what a person writes for them: ``exact``, ``numeric:0.01``, ``judge:is polite``, ``python:mine:check``.

====================== ===================================================================
``exact``              the answer is what is expected
``contains``           what is expected stands in the answer
``regex:PATTERN``      a pattern is found in the answer
``numeric[:TOL]``      the last numbers are equal, within a relative tolerance
``json[:FILE]``        valid JSON, against the JSON Schema in a file
``bleu[:MIN]``         sentence BLEU; MIN and more is a success (0.3)
``rouge[:MIN]``        ROUGE-L; likewise ``rouge1``, ``rouge2``
``similarity[:MIN]``   cosine of embeddings (0.8)
``judge:CRITERIA``     a model judges by the criteria
``prefer:CRITERIA``    a model finds the answer as good as what is expected, or better, in both orders
``python:MOD:FUNC``    a Python function of case and output
====================== ===================================================================
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import orjson

from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.evaluation import scorers
from pagoda.logic.evaluation.judge import Judge, Preference
from pagoda.logic.evaluation.overlap import bleu, rouge
from pagoda.logic.evaluation.score import Scorer
from pagoda.logic.evaluation.similarity import Similarity


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What scorers that ask a model need."""

    door: Inference
    call: Call
    judge_model: str
    embedding_model: str
    language: str = "en"


def scorer_from(text: str, means: Means) -> Scorer:
    """The scorer that a text names. Raises ``InvalidRequest``."""
    name, _, rest = text.partition(":")
    match name:
        case "exact":
            return scorers.exact()
        case "contains":
            return scorers.contains()
        case "regex" if rest:
            return scorers.regex(rest)
        case "numeric":
            return scorers.numeric(tolerance=_number(text, rest, 0.0))
        case "json":
            return scorers.json_valid(_schema(rest) if rest else None)
        case "bleu":
            return bleu(_number(text, rest, 0.3))
        case "rouge" | "rouge1" | "rouge2" | "rougeL":
            return rouge("rougeL" if name == "rouge" else name, _number(text, rest, 0.3))
        case "similarity":
            return Similarity(means.door, means.embedding_model, means.call, _number(text, rest, 0.8))
        case "judge" if rest:
            return Judge(means.door, means.judge_model, rest, means.call, means.language)
        case "prefer" if rest:
            return Preference(Judge(means.door, means.judge_model, rest, means.call, means.language))
        case "python" if rest.count(":") == 1:
            return _function(rest)
    raise InvalidRequest(
        f"There is no scorer {text[:80]!r}; use exact, contains, regex:PATTERN, numeric[:TOL], json[:FILE], bleu, "
        "rouge, similarity[:MIN], judge:CRITERIA, prefer:CRITERIA or python:MODULE:FUNCTION."
    )


def check_scorer(text: str) -> None:
    """Refuse what names no scorer, before there is a door to ask. Raises ``InvalidRequest``."""
    scorer_from(text, Means(door=cast(Inference, None), call=Call(), judge_model="", embedding_model=""))


def _number(text: str, rest: str, default: float) -> float:
    try:
        return float(rest) if rest else default
    except ValueError as error:
        raise InvalidRequest(f"The scorer {text!r} takes a number behind the colon.") from error


def _schema(path: str) -> dict[str, object]:
    try:
        schema = orjson.loads(Path(path).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidRequest(f"The schema {path} cannot be read: {error}.") from error
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{path} must hold a JSON Schema, an object.")
    return schema


def _function(where: str) -> Scorer:
    module, _, name = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"The scorer python:{where} cannot be imported: {error}.") from error
    if not callable(found):
        raise InvalidRequest(f"python:{where} is not a function.")
    return scorers.function(name, found)
