"""The lines of a batch's input: one request each, in OpenAI's batch format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pagoda.core.errors import InvalidRequest, StoreError

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
MOST_MISTAKES = 1000
_MOST_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    number: int
    custom_id: str
    endpoint: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a line; ``line`` counts from 1, ``None`` is the file as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What every line must keep to: one endpoint or (``None``) any, and naming a model unless one is given for all."""

    endpoint: str | None = None
    needs_model: bool = True


class _Wrong(Exception):
    """Control signal: a line cannot be a request, for this reason."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        self.code, self.message, self.param = code, message, param


def check_lines(path: Path, demand: Demand) -> tuple[int, list[Mistake]]:
    """How many requests there are, and all that is wrong with them (at most ``MOST_MISTAKES``)."""
    mistakes: list[Mistake] = []
    seen: dict[str, int] = {}
    for number, raw in _rows(path):
        if len(mistakes) >= MOST_MISTAKES:
            break
        try:
            line = _parse(number, raw, demand)
            if line.custom_id in seen:
                first = seen[line.custom_id]
                raise _Wrong(
                    "duplicate_custom_id", f"custom_id {line.custom_id!r} is that of line {first} too.", "custom_id"
                )
            seen[line.custom_id] = number
        except _Wrong as wrong:
            mistakes.append(Mistake(wrong.code, wrong.message, number, wrong.param))
    if not seen and not mistakes:
        mistakes.append(Mistake("empty_file", "The file has no requests."))
    return len(seen), mistakes


def read_lines(path: Path, demand: Demand) -> Iterator[Line]:
    """The requests of a file that was checked. Raises ``InvalidRequest`` when it has changed since."""
    for number, raw in _rows(path):
        try:
            yield _parse(number, raw, demand)
        except _Wrong as wrong:
            raise InvalidRequest(f"Line {number} of {path} was changed while it was being answered.") from wrong


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every line that is not blank, with its number."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield number, raw
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}).") from error


def _parse(number: int, raw: bytes, demand: Demand) -> Line:
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _Wrong("invalid_json_line", f"This line is not JSON: {error}.") from error
    if not isinstance(row, dict):
        raise _Wrong("invalid_json_line", "This line is JSON, but not an object.")
    custom_id, url, body = row.get("custom_id"), row.get("url"), row.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _MOST_CHARACTERS:
        raise _Wrong(
            "missing_custom_id", f"custom_id must be a text of 1 to {_MOST_CHARACTERS} characters.", "custom_id"
        )
    if row.get("method") != "POST":
        raise _Wrong("invalid_method", "method must be POST.", "method")
    if url not in ENDPOINTS:
        raise _Wrong("invalid_url", f"url must be one of {', '.join(ENDPOINTS)}.", "url")
    if demand.endpoint is not None and url != demand.endpoint:
        raise _Wrong("mismatched_url", f"url is {url}, but the batch is for {demand.endpoint}.", "url")
    if not isinstance(body, dict):
        raise _Wrong("missing_body", "body must be an object.", "body")
    if demand.needs_model and not isinstance(body.get("model"), str):
        raise _Wrong("missing_model", "body names no model.", "body.model")
    if unknown := sorted(row.keys() - {"custom_id", "method", "url", "body"}):
        raise _Wrong("unknown_field", f"There is no field {unknown[0]} in a line.", unknown[0])
    return Line(number, custom_id, url, body)
