"""A document as everything here sees it: plain text with its headings, each by its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; ``start`` is the place of its line in the document's text, in characters."""

    level: int
    title: str
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Plain text of one file. Every place in it is an index into ``text``, in characters."""

    text: str
    title: str
    kind: str
    """``text``, ``markdown``, ``html``, ``csv``, ``jsonl``, ``code``, ``pdf`` or ``docx``."""
    encoding: str
    """Of the bytes; empty where the form is no text."""
    headings: tuple[Heading, ...] = ()


def heading_at(headings: Sequence[Heading], place: int) -> str:
    """The headings over a place, outermost first, as in ``Guide > Install``; empty before the first."""
    above: list[Heading] = []
    for heading in headings:
        if heading.start > place:
            break
        above = [*(each for each in above if each.level < heading.level), heading]
    return " > ".join(each.title for each in above)
