"""The four labelled sets, read from the public data beside the project, in an order by the hash of their ids.

``even`` ids (SHA-256) are for fitting, odd ones for the report; the members of a pair, and items of two sets about one
text, lie on the same side.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.trust.pairs import pair_from

FOLDS = 5
SETS = ("qa", "pairs", "own", "general")
DATA = Path(os.environ.get("PAGODA_PUBLIC_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A labelled answer. ``answer`` is empty where the model is still to give it; then ``aliases`` label it."""

    id: str
    set: str
    question: str
    context: str
    answer: str = ""
    label: bool | None = None
    """Whether the answer is right; ``None``: its aliases decide."""
    aliases: tuple[str, ...] = ()
    kind: str = ""
    member: str = ""

    @property
    def key(self) -> str:
        """Of the item and the member of its pair."""
        return f"{self.set}/{self.id}/{self.member}"

    @property
    def even(self) -> bool:
        """Whether it is for fitting."""
        return int(sha256(self.id.encode()).hexdigest(), 16) % 2 == 0


def fold(id_: str) -> int:
    """Which part of the even half an item is left out with."""
    return int(sha256(f"fold {id_}".encode()).hexdigest(), 16) % FOLDS


def rank(id_: str) -> str:
    """By which ids are ordered."""
    return sha256(f"order {id_}".encode()).hexdigest()


def items(name: str) -> list[Item]:
    """All items of a set, always in the same order; the members of a pair follow one another."""
    return sorted(
        {"qa": _qa, "pairs": _pairs, "own": _own, "general": _general}[name](), key=lambda item: rank(item.id)
    )


def _lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / path).read_text(encoding="utf-8").split("\n") if line]


def _qa() -> Iterator[Item]:
    for number, row in enumerate(_lines("hallucination/qa_one_turn.jsonl")):
        common = Item(id=f"halueval-qa-{number}", set="qa", question=row["question"], context=row["knowledge"])
        yield replace(common, answer=row["right_answer"], label=True, member="true")
        yield replace(common, answer=row["hallucinated_answer"], label=False, member="false")


def natural_questions() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Id, context, question and accepted answers."""
    found = []
    for number, row in enumerate(_lines("rag/nq_open_book.jsonl")):
        context, _, rest = row["context"].removeprefix("Context: ").rpartition("\n\nQuestion: ")
        question = rest.removesuffix("\nAnswer:")
        found.append((f"nq-{number}", context, question + "?", (row["answer"], *row["aliases"])))
    return found


def chinese_questions() -> list[tuple[str, str, str, str, list[str]]]:
    """Id, context, question, answer, and the answers of all questions about the same text."""
    data = json.loads((DATA / "rag/cmrc2018_trial.json").read_text(encoding="utf-8"))["data"]
    found = []
    for entry in data:
        for paragraph in entry["paragraphs"]:
            answers = [qa["answers"][0]["text"] for qa in paragraph["qas"]]
            for qa in paragraph["qas"][:1]:
                found.append((qa["id"], paragraph["context"], qa["question"], qa["answers"][0]["text"], answers))
    return found


def _pairs() -> Iterator[Item]:
    rows = natural_questions()
    names = sorted({alias for *_, aliases in rows for alias in aliases[:1] if alias[:1].isupper()})
    made = [
        (
            id_,
            context,
            question,
            pair_from(id_, context, next((a for a in aliases if a in context), ""), names, chinese=False),
        )
        for id_, context, question, aliases in rows
    ]
    chinese = chinese_questions()
    every = sorted({answer for *_, answers in chinese for answer in answers if 2 <= len(answer) <= 12})
    made += [
        (id_, context, question, pair_from(id_, context, answer, [*answers, *every], chinese=True))
        for id_, context, question, answer, answers in chinese
    ]
    for id_, context, question, pair in made:
        if pair is not None:
            kind = pair.kind + ("/inside" if pair.inside else "")
            common = Item(id=id_, set="pairs", question=question, context=context, kind=kind)
            yield replace(common, answer=pair.true, label=True, member="true")
            yield replace(common, answer=pair.false, label=False, member="false")


def _own() -> Iterator[Item]:
    for id_, context, question, aliases in natural_questions():
        yield Item(id=id_, set="own", question=question, context=context, aliases=aliases)


def _general() -> Iterator[Item]:
    for row in _lines("hallucination/general.jsonl"):
        yield Item(
            id=f"halueval-general-{row['ID']}",
            set="general",
            question=row["user_query"],
            context="",
            answer=row["chatgpt_response"],
            label=row["hallucination"] == "no",
        )
