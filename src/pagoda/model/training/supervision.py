"""The supervision report: what a training will learn, told before its first step. Numbers, and a few rows as text."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pagoda.core.types import Json
from pagoda.model.data.rows import Refused
from pagoda.model.training.encoding import IGNORED, Example

Kind: TypeAlias = Literal["given", "learnt", "end"]
Piece: TypeAlias = tuple[str, Kind]
"""Text of neighbouring tokens, and whether they are only read, learnt, or the learnt end of an answer."""

_SHOWN_TOKENS = 400


@dataclass(frozen=True, slots=True)
class Supervision:
    """What carries loss in a set of rows."""

    rows: int
    refused: dict[str, int]
    """Rows by the reason for which they are refused."""
    tokens: int
    supervised: int
    """Tokens that carry loss."""
    least: int
    median: float
    most: int
    """Supervised tokens of a row."""
    unended: int
    """Rows whose end (the stop token) is not learnt: a model trained on many of them does not know when to stop."""
    truncated: int
    sequences: int
    """What batches are made of: rows, or packs of them."""
    padding: float
    """Share of a batch that is padding, with sequences batched by length if the recipe says so, else as they come."""
    padding_to_longest: float
    """The same if every row were padded to ``max_length``, one a sequence."""
    validation: int
    """Rows that are measured on."""
    trained: int
    """Those among them whose tokens a training row has too: what is measured on them says too much."""

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return asdict(self)


def supervision_of(
    examples: Sequence[Example],
    refused: Sequence[Refused],
    lengths: Sequence[int],
    validation: Sequence[Example],
    *,
    batch: int,
    most: int,
    sort: bool,
) -> Supervision:
    """The report on rows that become sequences of these ``lengths`` (tokens), beside those for ``validation``.

    ``most`` is the recipe's max_length.
    """
    learnt = [example.supervised or 1 for example in examples]  # a class is one label
    tokens = sum(len(example.ids) for example in examples)
    known = {example.ids for example in examples} if validation else set()
    return Supervision(
        rows=len(examples),
        refused=dict(Counter(each.reason for each in refused).most_common()),
        tokens=tokens,
        supervised=sum(learnt),
        least=min(learnt, default=0),
        median=statistics.median(learnt) if learnt else 0.0,
        most=max(learnt, default=0),
        unended=sum(not example.ends for example in examples),
        truncated=sum(example.truncated for example in examples),
        sequences=len(lengths),
        padding=_padding(sorted(lengths) if sort else lengths, batch),
        padding_to_longest=1 - tokens / (len(examples) * most) if examples else 0.0,
        validation=len(validation),
        trained=sum(example.ids in known for example in validation),
    )


def _padding(lengths: Sequence[int], batch: int) -> float:
    groups = [lengths[place : place + batch] for place in range(0, len(lengths), batch)]
    computed = sum(max(group) * len(group) for group in groups)
    return 1 - sum(lengths) / computed if computed else 0.0


def pieces(example: Example, tokenizer: Any) -> list[Piece]:
    """The row as text, cut where supervision begins or ends; long ones are cut off in their middle."""
    found: list[tuple[list[int], Kind]] = []
    for ids, kind in _kinds(example):
        if found and found[-1][1] == kind != "end":
            found[-1][0].extend(ids)
        else:
            found.append((list(ids), kind))
    shown: list[Piece] = []
    for tokens, kind in found:
        half = _SHOWN_TOKENS // 2
        if len(tokens) > _SHOWN_TOKENS:
            text = f"{tokenizer.decode(tokens[:half])} [...] {tokenizer.decode(tokens[-half:])}"
        else:
            text = tokenizer.decode(tokens)
        shown.append((text, kind))
    return shown


def _kinds(example: Example) -> Iterator[tuple[list[int], Kind]]:
    if len(example.labels) != len(example.ids):  # a class: all is read
        yield list(example.ids), "given"
        return
    last = max((place for place, label in enumerate(example.labels) if label != IGNORED), default=-1)
    for place, (token, label) in enumerate(zip(example.ids, example.labels, strict=True)):
        learnt = label != IGNORED and place > 0
        yield [token], "end" if learnt and example.ends and place == last else "learnt" if learnt else "given"
