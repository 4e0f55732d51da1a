"""Answers that are hit again are not decoded again, and are never another's, an older one's or a purged one's."""

from __future__ import annotations

import pytest

from pagoda.core.types import Delta, Finish, Started, Usage
from pagoda.service.cache.decoded import Decoded
from pagoda.service.cache.entry import Entry, UnusableEntry, encode_entry

ONE, TWO = bytes(32), bytes([1] * 32)


def raw(digest: bytes, text: str) -> bytes:
    items = (Started("m", "fake"), Delta(0, text), Finish(0, "stop"), Usage(1, 1))
    return encode_entry(digest, Entry(1.0, items))


def test_the_same_bytes_are_decoded_once_and_others_anew() -> None:
    decoded = Decoded()
    first = decoded.entry(ONE, raw(ONE, "a"))
    assert decoded.entry(ONE, bytes(bytearray(raw(ONE, "a")))) is first
    assert decoded.entry(ONE, raw(ONE, "b")).items[1] == Delta(0, "b")
    assert decoded.entry(ONE, raw(ONE, "a")) == first
    assert decoded.bytes == len(raw(ONE, "a"))
    decoded.forget()
    assert (decoded.bytes, decoded.entry(ONE, raw(ONE, "a")) is first) == (0, False)


def test_what_is_unusable_stays_so() -> None:
    decoded = Decoded()
    decoded.entry(ONE, raw(ONE, "a"))
    for bad in (raw(TWO, "a"), raw(ONE, "a")[:-1], b"", raw(ONE, "a").replace(b"pgda", b"adgp")):
        with pytest.raises(UnusableEntry):
            decoded.entry(ONE, bad)


def test_it_is_bounded_and_the_one_used_longest_ago_goes_first() -> None:
    size = len(raw(ONE, "a"))
    decoded = Decoded(10 * size)
    keep = decoded.entry(ONE, raw(ONE, "a"))
    for number in range(2, 40):
        digest = bytes([number] * 32)
        decoded.entry(digest, raw(digest, "a"))
        assert decoded.entry(ONE, raw(ONE, "a")) is keep
        assert decoded.bytes <= 10 * size
    large = raw(TWO, "a" * 9 * size)
    assert decoded.entry(TWO, large) is not decoded.entry(TWO, large), "one large answer does not drive the others out"
