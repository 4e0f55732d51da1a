"""Questions whose answer takes several documents: a set in BeerQA's form, and how good an agent's search for it was.

BeerQA (Qi et al., EMNLP 2021) holds HotpotQA's questions (Yang et al., EMNLP 2018) with the paragraphs that support
them. Those that are supported by documents of two titles or more are asked; what is searched is every paragraph of the
file. Answers are compared as HotpotQA does, without articles, marks and capitals. Not here: asking agents
(``pagoda.application.acting``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.overlap import words_of
from pagoda.logic.evaluation.statistics import Interval, wilson
from pagoda.logic.inference.calling.wording import Wording, language_of
from pagoda.logic.tools.searching import Passage

_ARTICLES = frozenset({"a", "an", "the"})
_SHARES = ("exact", "contains", "twice", "complete")


@dataclass(frozen=True, slots=True)
class Item:
    """A question, its accepted answers, and the passages that support them."""

    id: str
    question: str
    answers: tuple[str, ...]
    support: frozenset[Passage]


@cache
def words() -> Wording:
    """The words for these evaluations."""
    return Wording("pagoda.logic.evaluation")


def instructions_for(item: Item) -> str:
    """What an agent is told beside the question, in the question's language."""
    return words().say(language_of([{"role": "user", "content": item.question}]), "multihop")


def read_set(path: Path) -> tuple[list[Item], list[Passage]]:
    """The questions that need several documents, and all passages, each once.

    Raises ``InvalidRequest`` where the file is missing, is none of BeerQA's form, or holds no such question.
    """
    try:
        rows = orjson.loads(path.read_bytes())["data"]
        given = [
            (row, [Passage(str(title), str(text).strip()) for title, text in row["context"]])
            for row in rows
            if row["question"] and row["answers"]
        ]
        items = [
            Item(str(row["id"]), row["question"], tuple(row["answers"]), frozenset(passages))
            for row, passages in given
            if len({passage.source for passage in passages}) > 1
        ]
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).") from error
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{path} is not JSON: {error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{path} has not the form of BeerQA: {error!r} at one of its questions.") from error
    if not items:
        raise InvalidRequest(f"{path} holds no question that is supported by documents of several titles.")
    return items, list(dict.fromkeys(passage for _, passages in given for passage in passages))


def score(item: Item, answer: str, searches: int, seen: Sequence[Passage]) -> dict[str, Any]:
    """What a row says of an answer: whether it is right, and how its support was found."""
    said = _plain(answer)
    wanted = [_plain(each) for each in item.answers]
    recall = len(item.support & set(seen)) / len(item.support)
    return {
        "exact": said in wanted,
        "contains": any(_holds(said, each) for each in wanted),
        "searches": searches,
        "twice": searches > 1,
        "recall": recall,
        "complete": recall == 1.0,
    }


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By strategy: counts, shares with their 95 % intervals (Wilson), and the mean recall of supporting passages."""
    by_strategy: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_strategy[row["strategy"]].append(row)
    return {name: _told(those) for name, those in by_strategy.items()}


def found(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How much of the support was found: the mean recall, and how often all of it."""
    return {
        "items": len(rows),
        "recall": sum(row["recall"] for row in rows) / len(rows),
        "complete": sum(row["complete"] for row in rows),
    }


def _told(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = {word: sum(bool(row[word]) for row in rows) for word in _SHARES}
    shares: dict[str, Interval | None] = {word: wilson(count, len(rows)) for word, count in counts.items()}
    return {
        **found(rows),
        **counts,
        "shares": {word: asdict(each) for word, each in shares.items() if each is not None},
        "searches": sum(row["searches"] for row in rows) / len(rows),
        "limited": sum(row["limited"] is not None for row in rows),
        "failed": sum(row["error"] is not None for row in rows),
    }


def _plain(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in _ARTICLES]


def _holds(text: Sequence[str], part: Sequence[str]) -> bool:
    """Whether words stand in a text side by side."""
    return bool(part) and any(text[at : at + len(part)] == list(part) for at in range(len(text) - len(part) + 1))
