"""New rows out of old ones: noise, case, other wordings, and what a served model rewrites; each says where it is from.

A new row keeps its answer and its label; only what is asked (or classified) changes. It is dropped, with the reason,
when its meaning moved too far or its label would no longer be given.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from pagoda.core.errors import InvalidRequest
from pagoda.model.data.duplicates import normal
from pagoda.model.data.rows import Row

Method: TypeAlias = Literal["noise", "case", "template", "paraphrase", "back_translation"]
METHODS: tuple[Method, ...] = get_args(Method)
SERVED: frozenset[Method] = frozenset({"paraphrase", "back_translation"})
PROVENANCE = "augmented"
"""The column of a new row that tells its origin."""

Rewrite: TypeAlias = Callable[[Method, str], Awaitable[str]]
Alike: TypeAlias = Callable[[str, str], Awaitable[float]]
Label: TypeAlias = Callable[[str, Sequence[str]], Awaitable[str]]

_NOISY_SHARE = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is added."""

    methods: tuple[Method, ...]
    share: float = 0.2
    """New rows as a share of the old ones."""
    seed: int = 0
    templates: tuple[str, ...] = ()
    """For ``template``: wordings with ``{text}`` in them."""
    least_alike: float = 0.9
    """Cosine of the embeddings of old and new text, at least; under multilingual E5 strangers reach 0.8."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise InvalidRequest(f"There is no augmentation {unknown[0]!r}; there are {', '.join(METHODS)}.")
        if not self.methods or not 0 < self.share <= 10:
            raise InvalidRequest("Give one method or more, and a share above 0 and up to 10.")
        wrong = [text for text in self.templates if "{text}" not in text]
        if wrong or ("template" in self.methods and not self.templates):
            raise InvalidRequest("The method template needs wordings, each with {text} in it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What needs a model: rewriting, likeness of meaning (cosine), the label that a text would be given."""

    rewrite: Rewrite | None = None
    alike: Alike | None = None
    label: Label | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a new row is from, and what was checked."""

    source: str
    row: int
    method: Method
    seed: int
    model: str | None
    similarity: float | None
    """``None``: meaning was not checked."""
    label_checked: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A new row with its provenance; or one that was made and dropped, with the reason."""

    row: Mapping[str, Any]
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Augmented:
    """New rows with their provenance, and those that were made but dropped."""

    added: tuple[Mapping[str, Any], ...]
    dropped: tuple[Mapping[str, Any], ...]


def sorted_out(made: Iterable[Made]) -> Augmented:
    """What stays and what does not."""
    rows = list(made)
    return Augmented(
        tuple(each.row for each in rows if not each.dropped), tuple(each.row for each in rows if each.dropped)
    )


async def augment(rows: Sequence[Row], plan: Plan, means: Means) -> Augmented:
    """Make new rows. Raises what the means raise."""
    return sorted_out([each async for each in new_rows(rows, plan, means)])


def count_new(rows: Sequence[Row], plan: Plan) -> int:
    """How many rows are made, dropped ones among them."""
    return round(sum(bool(row.text.strip()) for row in rows) * plan.share)


async def new_rows(rows: Sequence[Row], plan: Plan, means: Means, *, skip: int = 0) -> AsyncIterator[Made]:
    """New rows one by one, without the first ``skip``. The same seed makes the same ones, but for what a model writes.

    Raises ``InvalidRequest`` where a model is needed and none is served.
    """
    if SERVED & set(plan.methods) and means.rewrite is None:
        raise InvalidRequest("Paraphrase and back-translation need a served model.")
    labels = sorted({row.label for row in rows if row.label is not None})
    for row, method, chance in _chosen(rows, plan)[skip:]:
        old = changeable(row)
        new = await _changed(old, method, chance, plan, means)
        similarity, fault = None, None
        if new == old or (normal(new) == normal(old) and method != "case"):
            fault = ("unchanged", "it came out as it was")
        elif means.alike is not None and (similarity := await means.alike(old, new)) < plan.least_alike:
            fault = ("meaning", f"its meaning moved: cosine {similarity:.2f}, less than {plan.least_alike:g}")
        elif labels and means.label is not None and await _moved(row, old, new, labels, means.label):
            fault = ("label", "another label would be given to it than to the old text")
        if fault is not None:
            told = {"row": row.number, "method": method, "reason": fault[0], "why": fault[1], "text": new}
            yield Made(told, dropped=True)
            continue
        origin = Provenance(
            source=row.source,
            row=row.number,
            method=method,
            seed=plan.seed,
            model=means.model if method in SERVED else None,
            similarity=None if similarity is None else round(similarity, 4),
            label_checked=bool(labels) and means.label is not None,
        )
        yield Made({**with_changed(row, new).content, PROVENANCE: asdict(origin)})


def changeable(row: Row) -> str:
    """The text of a row that may change: what is asked, or classified, or all of a text."""
    if row.form == "chat":
        return str(row.content["messages"][_last_question(row)]["content"])
    name = "prompt" if row.form in ("completion", "preference") else "text"
    value = row.content.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"Row {row.number} has no {name} of plain text to change.")
    return value


def with_changed(row: Row, text: str) -> Row:
    """The row with that text replaced."""
    if row.form == "chat":
        place = _last_question(row)
        messages = [dict(message) for message in row.content["messages"]]
        messages[place]["content"] = text
        return row.with_content(messages=messages)
    return row.with_content(**{"prompt" if row.form in ("completion", "preference") else "text": text})


def noisy(text: str, chance: random.Random) -> str:
    """As typed in haste: neighbouring letters swapped, one left out, or one twice; digits stay."""
    marks = list(text)
    places = [place for place, mark in enumerate(marks[:-1]) if mark.isalpha() and marks[place + 1].isalpha()]
    for place in sorted(
        chance.sample(places, min(len(places), max(1, round(len(places) * _NOISY_SHARE)))), reverse=True
    ):
        same = marks[place] == marks[place + 1]
        kind = "drop" if same else chance.choice(("swap", "drop", "double"))
        if kind == "swap":
            marks[place], marks[place + 1] = marks[place + 1], marks[place]
        elif kind == "drop":
            del marks[place]
        else:
            marks.insert(place, marks[place])
    return "".join(marks)


def recased(text: str, chance: random.Random) -> str:
    """In another case: all small, all capital, or each word with a capital. Chinese has none and stays."""
    return chance.choice([each for each in (text.lower(), text.upper(), text.title()) if each != text] or [text])


async def _changed(text: str, method: Method, chance: random.Random, plan: Plan, means: Means) -> str:
    if method == "noise":
        return noisy(text, chance)
    if method == "case":
        return recased(text, chance)
    if method == "template":
        return chance.choice(plan.templates).replace("{text}", text)
    if means.rewrite is None:
        raise InvalidRequest(f"{method} needs a served model.")
    return (await means.rewrite(method, text)).strip()


async def _moved(row: Row, old: str, new: str, labels: Sequence[str], label: Label) -> bool:
    return row.label is not None and await label(old, labels) != await label(new, labels)


def _chosen(rows: Sequence[Row], plan: Plan) -> list[tuple[Row, Method, random.Random]]:
    """Each old row as evenly often as the share allows; its draws depend on the seed and on itself alone."""
    draw = random.Random(plan.seed)
    filled = [row for row in rows if row.text.strip()]
    found: list[tuple[Row, Method, random.Random]] = []
    wanted = count_new(rows, plan)
    turn = 0
    while len(found) < wanted:
        order = draw.sample(filled, len(filled))
        for row in order[: wanted - len(found)]:
            method = plan.methods[(row.number + turn) % len(plan.methods)]
            found.append((row, method, random.Random(f"{plan.seed}:{row.number}:{method}:{turn}")))
        turn += 1
    return found


def _last_question(row: Row) -> int:
    messages = row.content["messages"]
    places = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    if not places:
        raise InvalidRequest(f"Row {row.number} has no message of a user to change.")
    return places[-1]
