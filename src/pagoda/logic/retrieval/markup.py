"""Headings of Markdown and the plain text of HTML, by the standard library alone.

Scripts, styles and what else no reader sees are dropped. Not here: how a page looks, tables as tables.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from html.parser import HTMLParser

from pagoda.logic.retrieval.document import Heading

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*$", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+([^\n]*?)(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
_UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "iframe", "object"})
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "footer"),
        *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section"),
        *("table", "td", "th", "tr", "ul"),
    )
)
_BLANK = re.compile(r"\s+")


class Fences:
    """The code blocks of a Markdown text; one that is never closed goes to the end (CommonMark 0.31, 4.5)."""

    def __init__(self, text: str) -> None:
        self._starts, self._ends = list[int](), list[int]()
        mark = ""
        for found in _FENCE.finditer(text) if "```" in text or "~~~" in text else ():
            if not mark:
                mark = found[1]
                self._starts.append(found.start())
            elif found[1].startswith(mark) and not found[0].strip().strip(mark[0]):
                mark = ""
                self._ends.append(found.end())
        if mark:
            self._ends.append(len(text))

    def hold(self, place: int) -> bool:
        """Whether a place lies within a code block; its first character does not."""
        before = bisect_right(self._starts, place - 1) - 1
        return before >= 0 and place <= self._ends[before]


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """The headings with ``#``, none of code blocks."""
    fences = Fences(text)
    return tuple(
        Heading(len(found[1]), found[2].strip(), found.start())
        for found in _HEADING.finditer(text)
        if found[2].strip() and not fences.hold(found.start())
    )


def html_text(source: str) -> tuple[str, str, tuple[Heading, ...]]:
    """The plain text of a page, its title and headings."""
    page = _Page()
    page.feed(source)
    page.close()
    return page.text(), page.title, tuple(page.headings)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.headings: list[Heading] = []
        self._pieces: list[str] = []
        self._length = 0
        self._title: list[str] = []
        self._unseen: list[str] = []
        self._open: tuple[int, int, int] | None = None  # of the open heading: level, place in the text, first piece
        self._in_title = False
        self._pre = 0

    @property
    def title(self) -> str:
        return _BLANK.sub(" ", "".join(self._title)).strip()

    def text(self) -> str:
        return "".join(self._pieces).rstrip("\n ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen.append(tag)
        elif tag == "title":
            self._in_title = True
        elif tag in _BLOCKS:
            self._end_line(tag not in ("br", "li", "tr", "td", "th"))
            self._pre += tag == "pre"
            if tag[0] == "h" and tag[1:].isdigit():
                self._open = int(tag[1:]), self._length, len(self._pieces)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            if tag in self._unseen:
                del self._unseen[self._unseen.index(tag) :]
        elif tag == "title":
            self._in_title = False
        elif tag in _BLOCKS:
            if self._open is not None and tag == f"h{self._open[0]}":
                self._end_heading(*self._open)
            self._pre = max(0, self._pre - (tag == "pre"))
            self._end_line(tag not in ("br", "li", "tr", "td", "th"))

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._in_title:
            self._title.append(data)
            return
        shown = data if self._pre else _BLANK.sub(" ", data)
        if not self._pre and (not self._pieces or self._pieces[-1][-1].isspace()):
            shown = shown.lstrip()
        self._add(shown)

    def _end_heading(self, level: int, start: int, piece: int) -> None:
        title = _BLANK.sub(" ", "".join(self._pieces[piece:])).strip()
        if title:
            self.headings.append(Heading(level, title, start))
        self._open = None

    def _end_line(self, paragraph: bool) -> None:
        if self._pieces:
            wanted = "\n\n" if paragraph else "\n"
            ending = "".join(self._pieces[-2:])
            have = len(ending) - len(ending.rstrip("\n"))
            self._add(wanted[have:])

    def _add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._length += len(text)
