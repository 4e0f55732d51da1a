"""Compiles replacements of characters into the form of a SentencePiece normaliser (``precompiled_charsmap``).

llama.cpp applies that form before it looks up pieces. It is the length of a trie in bytes, the trie as an
XOR-compressed double array of 32-bit nodes over UTF-8 bytes, and the replacement texts, each ended by a zero byte.

A node holds its label in bits 0-7, in bit 8 whether a key ends there, and in bits 10-30 the distance (by XOR) to its
children, in units of 256 when bit 9 is set. The child under label 0 holds the key's value, marked by bit 31.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

LEAF = 1 << 8
WIDE = 1 << 9
VALUE = 1 << 31
NARROW_LIMIT = 1 << 21


@dataclass(slots=True)
class _Branch:
    children: dict[int, _Branch] = field(default_factory=dict)
    value: int | None = None


def compile_charsmap(replacements: Mapping[str, str]) -> bytes:
    """The compiled form of ``replacements``: what each text is replaced with; the longest match wins."""
    root = _Branch()
    texts = bytearray()
    places: dict[str, int] = {}
    for key, text in sorted(replacements.items()):
        if not key or "\0" in key or "\0" in text:
            raise ValueError("a replacement can neither be of nothing nor contain a zero character")
        if text not in places:
            places[text] = len(texts)
            texts += text.encode() + b"\0"
        branch = root
        for byte in key.encode():
            branch = branch.children.setdefault(byte, _Branch())
        branch.value = places[text]
    nodes = _DoubleArray().lay(root)
    return struct.pack(f"<I{len(nodes)}I", 4 * len(nodes), *nodes) + bytes(texts)


class _DoubleArray:
    """Nodes under construction; grows by whole blocks of 256, so that any label of any node stays inside."""

    def __init__(self) -> None:
        self._nodes: list[int] = [0] * 256
        self._used = bytearray(256)
        self._used[0] = 1
        self._starts: set[int] = set()
        self._first_free: dict[int, int] = {}

    def lay(self, root: _Branch) -> list[int]:
        """Place the whole trie; node 0 is its root."""
        waiting = [(0, root)]
        while waiting:
            index, branch = waiting.pop()
            labels = sorted(branch.children)
            if branch.value is not None:
                labels.insert(0, 0)
            if not labels:
                continue  # only the root of an empty map has none
            start = self._find(labels)
            self._nodes[index] |= self._distance(index ^ start) | (LEAF if branch.value is not None else 0)
            self._starts.add(start)
            for label in labels:
                self._used[start ^ label] = 1
                if label:
                    self._nodes[start ^ label] = label
                    waiting.append((start ^ label, branch.children[label]))
                elif branch.value is not None:
                    self._nodes[start] = VALUE | branch.value
        return self._nodes

    def _find(self, labels: list[int]) -> int:
        """A start of this node's own whose places for all ``labels`` are free.

        Two nodes with one start would each pass for the parent of the other's children.
        """
        first = labels[0]
        place = self._first_free.get(first, 1)
        while self._taken(place, first):
            place += 1
        self._first_free[first] = place  # what is taken stays taken, so the next search can begin here
        while self._taken(place, first) or any(self._used[place ^ first ^ label] for label in labels):
            place += 1
        return place ^ first

    def _taken(self, place: int, label: int) -> bool:
        """Whether a child with this label can never come to the place."""
        if place >= len(self._nodes):
            self._nodes += [0] * 256
            self._used += bytes(256)
        return bool(self._used[place]) or place ^ label in self._starts

    @staticmethod
    def _distance(distance: int) -> int:
        if distance < NARROW_LIMIT:
            return distance << 10
        raise ValueError("too many replacements for one charsmap")
