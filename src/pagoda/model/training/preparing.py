"""From a recipe's data to what the trainer takes: read, encoded, refused rows written down, packed or not, reported."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.core.runs.files import write_json
from pagoda.model.data.reading import read_data, write_rows
from pagoda.model.data.rows import Refused, Row
from pagoda.model.training.encoding import Encoder, Example, class_labels
from pagoda.model.training.packing import Packed, pack
from pagoda.model.training.recipe import Recipe
from pagoda.model.training.supervision import Piece, Supervision, pieces, supervision_of

REPORT, REFUSED = "supervision.json", "refused.jsonl"
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Split:
    """Rows for training and for validation, and the classes, before any token is made."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    refused: tuple[Refused, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the trainer takes, and the report on it."""

    train: tuple[Packed, ...]
    validation: tuple[Packed, ...]
    refused: tuple[Refused, ...]
    report: Supervision
    shown: tuple[tuple[int, list[Piece]], ...]
    """A few rows by number, as text cut where supervision begins and ends."""


def read_split(recipe: Recipe, seed: int) -> Split:
    """The recipe's rows. Raises ``InvalidRequest`` where there are none."""
    data = recipe.data
    train = read_data(data.train, form=data.form, columns=data.columns, limit=data.limit)
    train.check()
    rows, apart = list(train.rows), []
    refused = list(train.refused)
    if data.validation:
        held = read_data(data.validation, form=train.form, columns=data.columns)
        held.check()
        apart = list(held.rows)
        refused += held.refused
    elif data.validation_share:
        random.Random(seed).shuffle(rows)
        count = max(1, round(len(rows) * data.validation_share))
        apart, rows = sorted(rows[:count], key=_number), sorted(rows[count:], key=_number)
        if not rows:
            raise InvalidRequest(
                f"data.validation_share is {data.validation_share:g}, which leaves none of the {count} rows of "
                f"{data.train} to train on.",
                param="data.validation_share",
            )
    return Split(tuple(rows), tuple(apart), tuple(refused), class_labels([*rows, *apart], recipe))


def prepare(split: Split, tokenizer: Any, recipe: Recipe) -> Prepared:
    """Encode and pack. Raises ``InvalidRequest`` when every row is refused."""
    encoder = Encoder(tokenizer, recipe, split.labels)
    train, validation = encoder.encode(split.train), encoder.encode(split.validation)
    refused = (*split.refused, *train.refused, *validation.refused)
    for encoded, rows, use in ((train, split.train, "learnt from"), (validation, split.validation, "validated on")):
        if rows and not encoded.examples:
            first = encoded.refused[0]
            raise InvalidRequest(
                f"No row of {rows[0].source} can be {use}; the first, row {first.number}, because {first.why}.",
                param="data",
            )
    packs = recipe.packing and recipe.task == "generation"
    sequences = pack(train.examples, recipe.max_length) if packs else [Packed((each,)) for each in train.examples]
    report = supervision_of(
        train.examples,
        refused,
        [each.length for each in sequences],
        validation.examples,
        batch=recipe.batch_size,
        most=recipe.max_length,
        sort=recipe.group_by_length,
    )
    shown = tuple((each.number, pieces(each, tokenizer)) for each in _spread(train.examples))
    whole = tuple(Packed((each,)) for each in validation.examples)
    return Prepared(tuple(sequences), whole, refused, report, shown)


def fingerprint(prepared: Prepared) -> str:
    """What tells these sequences, in their tokens and labels, from others."""
    digest = hashlib.sha256()
    for part in (part for sequence in (*prepared.train, *prepared.validation) for part in sequence.parts):
        digest.update(array("q", [part.number, len(part.ids), *part.ids, *part.labels]).tobytes())
    return digest.hexdigest()


def write_report(prepared: Prepared, folder: Path) -> None:
    """Write the report and the refused rows into a folder."""
    shown = [{"row": number, "pieces": [list(piece) for piece in parts]} for number, parts in prepared.shown]
    write_json(folder / REPORT, {**prepared.report.to_json(), "shown": shown})
    write_rows(
        folder / REFUSED,
        [
            {"source": each.source, "row": each.number, "reason": each.reason, "why": each.why, "content": each.content}
            for each in prepared.refused
        ],
    )


def _spread(examples: Sequence[Example]) -> list[Example]:
    step = max(1, len(examples) // _SHOWN)
    return list(examples[::step][:_SHOWN])


def _number(row: Row) -> int:
    return row.number
