"""Templates: text with places for variables, and nothing that could be executed.

A small language of the Mustache family. Names only: no attributes, no calls, no expressions, so that neither a template
nor the text in a variable can reach Python. What a variable holds is put in once and never read again.

====================== =================================================================
``{{name}}``           the variable; a list is written out, a missing optional one is empty
``{{#name}}..{{/name}}``  once if the variable is true or not empty; for a list once an item
``{{.}}``              the item, inside such a block
``{{^name}}..{{/name}}``  if the variable is empty, false or missing
``{{> part}}``         another part of the same prompt
``{{! words }}``       a remark
``\\{{``                the braces themselves
====================== =================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Json

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
PART = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TAG = re.compile(r"\\\{\{|\{\{(.*?)\}\}|\{\{", re.DOTALL)
_ITEM = "."
_MOST_CHARACTERS = 1_000_000  # of a template with its parts: parts that include one another twice double each time
_MOST_PIECES = 100_000  # of a text: blocks of lists inside blocks of lists multiply
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Block:
    """Text that stands or not, or several times, by a variable."""

    name: str
    inverted: bool
    nodes: tuple[Node, ...]


Node: TypeAlias = "str | Slot | Block"


@dataclass(frozen=True, slots=True)
class Template:
    """A text with its places, ready to be filled in."""

    source: str
    nodes: tuple[Node, ...]
    names: frozenset[str]
    """The variables that it uses."""
    parts: frozenset[str]
    """The parts that it includes, directly or through others."""

    def fill(self, values: Mapping[str, Json], separator: str = ", ") -> str:
        """The text with these values; ``separator`` stands between the items of a list that is written out."""
        pieces: list[str] = []
        _fill(self.nodes, values, separator, pieces)
        return "".join(pieces)

    def __repr__(self) -> str:
        """As it was written; the rest follows from that."""
        return f"Template({self.source!r})"


def compile_template(source: str, parts: Mapping[str, str] | None = None, where: str = "template") -> Template:
    """A template with the parts that it includes.

    Raises ``InvalidRequest`` with line and column for what is not of this language, for an unknown part and for one
    that includes itself.
    """
    return _Compiler(parts or {}).compile(source, where, ())


class _Compiler:
    """Reads a template and the parts that it includes."""

    def __init__(self, parts: Mapping[str, str]) -> None:
        self._parts = parts
        self._characters = 0

    def compile(self, source: str, where: str, inside: tuple[str, ...]) -> Template:
        self._characters += len(source)
        if self._characters > _MOST_CHARACTERS:
            raise InvalidRequest(f"In {where}: with its parts it has over {_MOST_CHARACTERS:,} characters; shorten it.")
        text = _Text(source, where)
        end = 0
        for tag in _TAG.finditer(source):
            text.add(source[end : tag.start()])
            end = tag.end()
            place = _Place(source, tag.start(), where)
            if tag[0].startswith("\\"):
                text.add("{{")
            elif tag[1] is None:
                raise place.wrong("'{{' is not closed; write '}}' behind the name, or '\\{{' for the braces themselves")
            elif tag[1].lstrip().startswith(">"):
                self._include(tag[1].lstrip()[1:].strip(), text, place, inside)
            else:
                text.take(tag[1].strip(), place)
        text.add(source[end:])
        return text.finish()

    def _include(self, name: str, text: _Text, place: _Place, inside: tuple[str, ...]) -> None:
        if not PART.fullmatch(name) or name not in self._parts:
            there_are = ", ".join(sorted(self._parts)) or "none"
            raise place.wrong(f"there is no part {name!r}; there are: {there_are}")
        if name in inside:
            raise place.wrong(f"the part {name} includes itself ({' > '.join((*inside, name))})")
        part = self.compile(self._parts[name], f"the part {name}", (*inside, name))
        for node in part.nodes:
            text.add(node)
        text.names |= part.names
        text.parts |= {name, *part.parts}


class _Text:
    """One text while it is read: its nodes so far, and the blocks that are open."""

    def __init__(self, source: str, where: str) -> None:
        self.names: set[str] = set()
        self.parts: set[str] = set()
        self._source = source
        self._where = where
        self._nodes: list[Node] = []
        self._open: list[tuple[str, bool, _Place, list[Node]]] = []
        """Of each block: its variable, whether it is inverted, where it began, and the nodes around it."""

    def add(self, node: Node) -> None:
        """Text or a place, at the end."""
        if isinstance(node, str) and self._nodes and isinstance(self._nodes[-1], str):
            self._nodes[-1] += node
        elif node != "":
            self._nodes.append(node)

    def take(self, tag: str, place: _Place) -> None:
        """What stands between braces, without inclusions."""
        sign, name = (tag[0], tag[1:].strip()) if tag[:1] in ("#", "^", "/", "!") else ("", tag)
        if sign == "!":
            return
        if name == _ITEM and not sign:
            if not self._open:
                raise place.wrong("'{{.}}' is an item of a list and stands only inside '{{#list}}..{{/list}}'")
            self.add(Slot(name))
            return
        if not NAME.fullmatch(name):
            raise place.wrong(
                f"{name[:60]!r} is not the name of a variable: letters, digits and underscores; templates know no "
                "attributes, calls or expressions"
            )
        if sign == "/":
            self._close(name, place)
            return
        self.names.add(name)
        if not sign:
            self.add(Slot(name))
            return
        if len(self._open) >= _DEEPEST:
            raise place.wrong(f"blocks stand more than {_DEEPEST} deep in one another")
        self._open.append((name, sign == "^", place, self._nodes))
        self._nodes = []

    def finish(self) -> Template:
        """The whole."""
        if self._open:
            name, _, place, _ = self._open[-1]
            raise place.wrong(f"'{{{{/{name}}}}}' is missing")
        return Template(self._source, tuple(self._nodes), frozenset(self.names), frozenset(self.parts))

    def _close(self, name: str, place: _Place) -> None:
        if not self._open or self._open[-1][0] != name:
            raise place.wrong(
                f"'{{{{/{name}}}}}' closes nothing" + (f"; {self._open[-1][0]} is open" if self._open else "")
            )
        _, inverted, _, around = self._open.pop()
        block = Block(name, inverted, tuple(self._nodes))
        self._nodes = around
        self.add(block)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a template something stands."""

    source: str
    offset: int
    where: str

    def wrong(self, why: str) -> InvalidRequest:
        """The error that says so, with line and column counted from 1."""
        line = self.source.count("\n", 0, self.offset) + 1
        column = self.offset - (self.source.rfind("\n", 0, self.offset) + 1) + 1
        return InvalidRequest(f"In {self.where}, line {line}, column {column}: {why}.", code="bad_template")


def _fill(nodes: tuple[Node, ...], values: Mapping[str, Json], separator: str, pieces: list[str]) -> None:
    if len(pieces) > _MOST_PIECES:
        raise InvalidRequest("Lists inside lists make this prompt too long; shorten the lists.", code="bad_template")
    for node in nodes:
        if isinstance(node, str):
            pieces.append(node)
        elif isinstance(node, Slot):
            pieces.append(_written(values.get(node.name), separator))
        else:
            for inner in _scopes(node, values):
                _fill(node.nodes, inner, separator, pieces)


def _scopes(block: Block, values: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """The values for each time that a block stands."""
    value = values.get(block.name)
    empty = value is None or value is False or value in ("", [], ())
    if block.inverted:
        if empty:
            yield values
    elif isinstance(value, list | tuple):
        for item in value:
            yield {**values, _ITEM: item}
    elif not empty:
        yield values


def _written(value: Json, separator: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return separator.join(_written(item, separator) for item in value)
    if isinstance(value, float):
        return f"{value:g}" if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)
