"""Code blocks of the documents, with the mark that an invisible comment above each one gives it.

``<!-- snippet: run -->``, ``run, continues`` (Python that goes on from the block before), ``run; expect: TEXT`` (which
standard output must hold), ``settings`` (TOML that loads), ``settings, served`` (the service starts with it), and
``untested (REASON)``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = frozenset({"sh", "bash", "shell", "console", "zsh", "python", "py", "pycon", "toml"})
TESTED_ELSEWHERE = {
    "docs/guides/runs.md": "tests/docs/test_runs_guide.py",
    "docs/guides/runs.zh.md": "tests/docs/test_runs_guide.py",
}
_MARK = re.compile(r"<!-- snippet: (?P<words>untested \(.+\)|[^;]+?)(?:; expect: (?P<expect>.+))? -->")


@dataclass(frozen=True)
class Snippet:
    """A block of code in a document."""

    document: str
    line: int
    language: str
    text: str
    mark: str
    """What is to be done with it; empty where no comment says it."""
    expect: str

    @property
    def place(self) -> str:
        """Where a reader finds it."""
        return f"{self.document}:{self.line}"


def documents() -> list[str]:
    """All documents that may hold code."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def snippets(document: str) -> list[Snippet]:
    """The fenced blocks of a document, in order."""
    return parse(document, (ROOT / document).read_text(encoding="utf-8"))


def parse(document: str, text: str) -> list[Snippet]:
    """The fenced blocks of a document's text."""
    found: list[Snippet] = []
    body: list[str] = []
    fence, begun, language, above, mark = "", 0, "", "", ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if fence:
            if stripped == fence:
                said = _MARK.fullmatch(mark)
                words, expect = (said["words"], said["expect"] or "") if said else ("", "")
                found.append(Snippet(document, begun, language, "\n".join(body) + "\n", words, expect))
                fence = ""
            else:
                body.append(line)
        elif opening := re.fullmatch(r"(`{3,}|~{3,})\s*(\S*).*", stripped):
            fence, begun, language, mark, body = opening[1], number, opening[2].lower(), above, []
        above = stripped
    return found
