"""Data sets for evaluations: JSON Lines, JSON, CSV and TSV files as cases, with every mistake told by its line.

Files are UTF-8, with or without a mark; UTF-16 with its mark; GB 18030 only where it is asked for, since any bytes pass
as some Chinese.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from pagoda.core.errors import Conflict, InvalidRequest
from pagoda.core.types import Json
from pagoda.logic.evaluation.score import Case

ENCODINGS = ("utf-8", "utf-16", "gb18030")
_MOST_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which file, and which of its columns mean what."""

    path: str
    expected: str | None = None
    """The column of what is expected."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names that a prompt uses, with the column of each; other columns keep their names."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """What is expected, written otherwise: ``0`` as ``negative``."""
    limit: int | None = None
    """As many cases, drawn by the seed."""
    seed: int = 0
    encoding: str = "utf-8"


def read_cases(source: Source) -> list[Case]:
    """The cases of a data set. Raises ``InvalidRequest`` that names file, line and column."""
    path = Path(source.path)
    text = _text(path, source.encoding)
    rows = list(_rows(path, text))
    if not rows:
        raise InvalidRequest(f"{path} holds no cases.")
    if source.limit is not None and source.limit < len(rows):
        rows = sorted(random.Random(source.seed).sample(rows, source.limit), key=lambda row: row[0])
    cases = [_case(source, number, row) for number, row in rows]
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise InvalidRequest(f"{path}: the id {case.id[:80]!r} stands there twice.")
        seen.add(case.id)
    return cases


def digest_of(path: str) -> str:
    """SHA-256 of a file, by which a comparison knows its data again. Raises ``InvalidRequest``."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).") from error


def check_digest(path: str, digest: str) -> None:
    """Raise ``Conflict`` where a run would go on with another file than it began with."""
    if digest_of(path) != digest:
        raise Conflict(f"{path} is not what it was when this run began; begin a new one.")


def _text(path: Path, encoding: str) -> str:
    if encoding not in ENCODINGS:
        raise InvalidRequest(f"The encoding {encoding!r} is not read; use one of {', '.join(ENCODINGS)}.")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidRequest(f"{path} has more than 2 GiB; give a part of it.")
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    try:
        return raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(
            f"{path}, line {line}: this is not {encoding.upper()}. Save the whole file as UTF-8; if all of it is in "
            "another encoding, say so with --encoding."
        ) from error


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Json]]]:
    """Each row with the number of its line (or its place in a JSON list), from 1."""
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    yield number, _object(path, number, line)
        case ".json":
            for number, row in enumerate(_list(path, text), 1):
                yield number, _checked(path, number, row)
        case ".csv" | ".tsv" as kind:
            yield from _table(path, text, "," if kind == ".csv" else "\t")
        case other:
            raise InvalidRequest(f"{path}: {other or 'no suffix'} is not read; give .jsonl, .json, .csv or .tsv.")


def _object(path: Path, number: int, line: str) -> dict[str, Json]:
    try:
        return _checked(path, number, orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{path}, line {number}: this is not JSON ({error}).") from error


def _list(path: Path, text: str) -> list[Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{path} is not JSON ({error}).") from error
    if not isinstance(found, list):
        raise InvalidRequest(f"{path} must hold a list of objects; give one object a line as .jsonl otherwise.")
    return found


def _checked(path: Path, number: int, row: object) -> dict[str, Json]:
    if not isinstance(row, dict):
        raise InvalidRequest(f"{path}, line {number}: a case is an object with a value a column.")
    return row


def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, dict[str, Json]]]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not all(name.strip() for name in header):
            raise InvalidRequest(
                f"{path}, line 1: every column needs a name of its own; found {', '.join(header)[:200]}."
            )
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise InvalidRequest(
                    f"{path}, line {reader.line_num}: it has {len(row)} columns, the first line names {len(header)}."
                )
            yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InvalidRequest(f"{path}, line {reader.line_num}: {error}.") from error


def _case(source: Source, number: int, row: dict[str, Json]) -> Case:
    values = dict(row)
    for name, column in source.columns.items():
        values[name] = _cell(source, number, row, column)
    expected = None
    if source.expected is not None:
        cell = _cell(source, number, row, source.expected)
        if cell is None:
            raise InvalidRequest(f"{source.path}, line {number}: {source.expected!r} is empty; nothing is expected.")
        written = cell if isinstance(cell, str) else orjson.dumps(cell).decode()
        expected = source.replaced.get(written, written)
    return Case(id=str(row.get("id", number)), values=values, expected=expected)


def _cell(source: Source, number: int, row: Mapping[str, Json], column: str) -> Json:
    if column not in row:
        raise InvalidRequest(
            f"{source.path}, line {number}: there is no column {column!r}; it has: {', '.join(map(str, row))[:200]}."
        )
    return row[column]
