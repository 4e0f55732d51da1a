"""Files of rows: JSONL, JSON, CSV, TSV, Parquet, and data sets of the hub. What cannot be read is refused by row."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, NotFound, StoreError, Unavailable
from pagoda.model.data.rows import Form, Refused, Row, row_from

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
HUB = "hub:"
_HUB_NAME = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:/([^/#]+))?(?:#(.+))?")
_MOST_FIELD_BYTES = 16 * 1024 * 1024
"""Of a table's field; the standard library's own bound is 128 KiB, less than a long document."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What a source holds: the rows of one form, and those that were refused."""

    source: str
    form: Form | None
    rows: tuple[Row, ...]
    refused: tuple[Refused, ...]

    @property
    def count(self) -> int:
        """All rows of the source."""
        return len(self.rows) + len(self.refused)

    def check(self) -> None:
        """Raise ``InvalidRequest`` when no row can be used."""
        if not self.rows:
            why = f": row {self.refused[0].number}: {self.refused[0].why}" if self.refused else " at all"
            raise InvalidRequest(f"{self.source} has no rows that can be used{why}.", param="data")


def read_data(
    source: str,
    *,
    form: Form | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int = 0,
    defaults: Mapping[str, Any] | None = None,
) -> DataSet:
    """Read a file, or ``hub:OWNER/NAME[/SUBSET][#SPLIT]``. Without a ``form`` the first row that has one
    gives that of all.

    ``defaults`` are values of columns that a record may lack.
    Raises ``NotFound`` for a missing file, ``InvalidRequest`` for a kind that is not read.
    """
    rows: list[Row] = []
    refused: list[Refused] = []
    for number, record in enumerate(_records(source), 1):
        if limit and number > limit:
            break
        found: Row | Refused
        if isinstance(record, Refused):
            found = record
        else:
            found = row_from({**(defaults or {}), **record}, number, form=form, columns=columns)
        if isinstance(found, Refused):
            refused.append(replace(found, number=number, source=source))
        else:
            form = found.form
            rows.append(replace(found, source=source))
    return DataSet(source, form, tuple(rows), tuple(refused))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write records as JSONL, in place of what was there; whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        draft.replace(path)
    except OSError as error:
        if draft.exists():
            draft.unlink()
        raise StoreError(
            f"{path} could not be written ({error.strerror}); choose another file or free space."
        ) from error


def _records(source: str) -> Iterator[Mapping[str, Any] | Refused]:
    if source.startswith(HUB):
        return _from_hub(source.removeprefix(HUB))
    path = Path(source).expanduser()
    if not path.is_file():
        raise NotFound(f"There is no file {path}; give a file of rows, or hub:OWNER/NAME.", param="data")
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return _from_jsonl(path)
    if kind == ".json":
        return _from_json(path)
    if kind in (".csv", ".tsv"):
        return _from_csv(path, "\t" if kind == ".tsv" else ",")
    if kind == ".parquet":
        return _from_parquet(path)
    raise InvalidRequest(f"{path.name} is of no kind that is read; there are {', '.join(KINDS)}.", param="data")


def _from_jsonl(path: Path) -> Iterator[Mapping[str, Any] | Refused]:
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except UnicodeDecodeError as error:
                yield Refused(0, "unreadable", f"it is not UTF-8 ({error.reason} at byte {error.start})")
                continue
            except ValueError as error:
                yield Refused(0, "unreadable", f"it is not JSON ({error})", line.decode("utf-8", "replace").strip())
                continue
            yield _sound(value, line)


def _from_json(path: Path) -> Iterator[Mapping[str, Any] | Refused]:
    try:
        whole = path.read_bytes()
        values = json.loads(whole)
    except ValueError as error:
        raise InvalidRequest(
            f"{path.name} is not JSON ({error}); write one object a line into a .jsonl file."
        ) from error
    if not isinstance(values, list):
        raise InvalidRequest(f"{path.name} is not a list of rows; write one object a line into a .jsonl file.")
    for value in values:
        yield _sound(value, whole)


def _sound(value: Any, said: bytes) -> Mapping[str, Any] | Refused:
    """A JSON value as a record. ``said`` is the JSON, which alone can tell of half a character that UTF-8 has not."""
    if not isinstance(value, dict):
        return Refused(0, "unreadable", "it is not a JSON object", value)
    if b"\\u" in said:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return Refused(0, "unreadable", f"it holds half a character ({error.object[error.start]!a})")
    return value


def _from_csv(path: Path, delimiter: str) -> Iterator[Mapping[str, Any] | Refused]:
    csv.field_size_limit(_MOST_FIELD_BYTES)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for record in _lines_of_table(path, csv.DictReader(file, delimiter=delimiter)):
            plain = {name: value for name, value in record.items() if name is not None}
            if None in record or None in record.values():
                yield Refused(0, "unreadable", "it has more or fewer fields than the first line names", plain)
            elif any("\udc80" <= mark <= "\udcff" for value in plain.values() for mark in value):
                yield Refused(0, "unreadable", "it is not UTF-8")
            else:
                yield plain


def _lines_of_table(path: Path, reader: csv.DictReader[str]) -> Iterator[dict[str | Any, str | Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise InvalidRequest(f"{path.name}, line {reader.line_num + 1} is no line of a table ({error}).") from error


def _from_parquet(path: Path) -> Iterator[Mapping[str, Any] | Refused]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _missing("Parquet files need pyarrow", error) from error
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except ArrowException as error:
        raise StoreError(f"{path.name} is no Parquet file that can be read ({error}).", code="broken_file") from error


def _from_hub(name: str) -> Iterator[Mapping[str, Any] | Refused]:
    try:
        import datasets
    except ImportError as error:
        raise _missing("Data sets of the hub need datasets", error) from error
    if not (named := _HUB_NAME.fullmatch(name)):
        raise InvalidRequest(f"{HUB}{name} names no data set of the hub; write hub:OWNER/NAME/SUBSET#SPLIT.")
    repository, subset, split = named.groups()
    say = "" if subset else f"; a subset is named as {HUB}{repository}/SUBSET"
    try:
        found = datasets.load_dataset(repository, subset, split=split or "train", streaming=True)
        classes = {
            column: feature.names
            for column, feature in (found.features or {}).items()
            if isinstance(feature, datasets.ClassLabel)
        }
        for record in found:
            yield {**record, **{column: _named(names, record[column]) for column, names in classes.items()}}
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(
            f"The data set {repository} cannot be read ({why.rstrip('.')}){say}.", retryable=False
        ) from error


def _named(names: Sequence[str], place: int | None) -> str | None:
    """A class by its name; the hub keeps numbers, and -1 where a test set does not tell."""
    return names[place] if place is not None and place >= 0 else None


def _missing(what: str, error: ImportError) -> Unavailable:
    way = "python -m pip install 'pagoda-llm[train]'"
    return Unavailable(f"{what}, which this install lacks: {way}.", code="not_installed", retryable=False)
