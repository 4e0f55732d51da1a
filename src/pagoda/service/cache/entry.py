"""A cached answer as bytes: a head that tells what it is, and the engine's own events.

The head holds a mark, a digest of the form (so that a field added to an event makes older entries unreadable instead
of wrong), the key's digest (so that another key's bytes are never taken for this one's, whatever a connection mixed
up), the time it was made, and a checksum.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, TypeAlias

import orjson

from pagoda.core.types import CallDelta, Delta, Embeddings, Event, Finish, Started, TokenLogprob, Usage

Item: TypeAlias = Event | Embeddings
"""What an answer consists of: the events of a generation, or vectors."""
Reason: TypeAlias = Literal["corrupt", "version", "foreign"]

_KINDS: tuple[type[Any], ...] = (Started, Delta, Finish, Usage, Embeddings, CallDelta)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_FIELDS = {kind: [field.name for field in dataclasses.fields(kind)] for kind in _KINDS}
_VALUES = {kind: attrgetter(*names) for kind, names in _FIELDS.items()}
_MARK = b"pgda"
_HEAD = struct.Struct("<4s8s32sdI")


def _form() -> bytes:
    shapes = [[kind.__name__, *(f"{f.name}: {f.type}" for f in dataclasses.fields(kind))] for kind in _KINDS]
    shapes.append([field.name for field in dataclasses.fields(TokenLogprob)])
    return hashlib.blake2b(orjson.dumps(shapes), digest_size=8).digest()


FORM = _form()


@dataclass(frozen=True)
class Entry:
    """A whole answer, and when it was made (Unix time, seconds)."""

    made: float
    items: tuple[Item, ...]

    @cached_property
    def joined(self) -> tuple[Item, ...]:
        """The items with pieces of text that follow each other in one. Thinking is left as it came."""
        return tuple(_joined(self.items))


class UnusableEntry(Exception):
    """Control signal: these bytes are no answer for this key; ``reason`` is counted."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def encode_entry(digest: bytes, entry: Entry) -> bytes:
    """The bytes to keep."""
    body = orjson.dumps([_row(item) for item in entry.items])
    return _HEAD.pack(_MARK, FORM, digest, entry.made, zlib.crc32(body)) + body


def decode_entry(digest: bytes, raw: bytes) -> Entry:
    """The answer kept for a key. Raises ``UnusableEntry``."""
    if len(raw) < _HEAD.size:
        raise UnusableEntry("corrupt")
    mark, form, owner, made, check = _HEAD.unpack_from(raw)
    body = raw[_HEAD.size :]
    if mark != _MARK:
        raise UnusableEntry("corrupt")
    if form != FORM:
        raise UnusableEntry("version")
    if owner != digest:
        raise UnusableEntry("foreign")
    if zlib.crc32(body) != check:
        raise UnusableEntry("corrupt")
    return Entry(made, tuple(_item(row) for row in orjson.loads(body)))


def _joined(items: Sequence[Item]) -> Iterator[Item]:
    for choice, run in groupby(items, _choice_of_text):
        if choice is None:
            yield from run
            continue
        pieces = [item for item in run if isinstance(item, Delta)]
        logprobs = tuple(token for piece in pieces for token in piece.logprobs)
        yield Delta(choice, "".join(piece.text for piece in pieces), logprobs, pieces=len(pieces))


def _choice_of_text(item: Item) -> int | None:
    return item.index if isinstance(item, Delta) and not item.reasoning else None


def _row(item: Item) -> list[Any]:
    """The kind's number and the fields, in order."""
    values: Sequence[Any] = _VALUES[type(item)](item)
    if isinstance(item, Embeddings):
        values = [values[0], [base64.b64encode(vector).decode() for vector in item.vectors], *values[2:]]
    elif isinstance(item, Delta) and not item.reasoning:  # most events are short text: two fields say it all
        values = values[:3] if item.logprobs else values[:2]
    return [_NUMBERS[type(item)], *values]


def _item(row: Sequence[Any]) -> Item:
    kind, values = _KINDS[row[0]], list(row[1:])
    if kind is Delta:
        if len(values) > 2:
            values[2] = tuple(_logprob(token) for token in values[2])
        return Delta(*values)
    if kind is Embeddings:
        values[1] = tuple(base64.b64decode(vector) for vector in values[1])
        return Embeddings(**dict(zip(_FIELDS[Embeddings], values, strict=True)))
    if kind is Started:
        values[2] = tuple(values[2])
    made: Item = kind(*values)
    return made


def _logprob(token: dict[str, Any]) -> TokenLogprob:
    raw = token["bytes"]
    return TokenLogprob(
        token["token"],
        token["logprob"],
        None if raw is None else tuple(raw),
        tuple(_logprob(rival) for rival in token["top"]),
        token["id"],
    )
