"""Files read as documents: text, Markdown, HTML, CSV, JSON Lines, source code, PDF and DOCX.

Encodings are detected and told. What cannot be read is refused by name and never a crash. Not here: where files come
from (``ingestion``).
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath

from pagoda.core.errors import InvalidRequest, TooLarge
from pagoda.core.storage.text import storable
from pagoda.core.types import Json
from pagoda.logic.retrieval.document import Document, Heading
from pagoda.logic.retrieval.markup import html_text, markdown_headings
from pagoda.logic.retrieval.office import docx_text, pdf_text

MOST_BYTES = 64 * 1024 * 1024
"""Of one file."""

KINDS = {
    ".pdf": "pdf",
    ".docx": "docx",
    **dict.fromkeys((".txt", ".text", ".log", ".rst"), "text"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys(
        [
            ".py",
            ".js",
            ".ts",
            ".tsx",
            ".jsx",
            ".java",
            ".c",
            ".h",
            ".cpp",
            ".hpp",
            ".cc",
            ".cs",
            ".go",
            ".rs",
            ".rb",
            ".php",
            ".swift",
            ".kt",
            ".scala",
            ".sh",
            ".sql",
            ".r",
            ".lua",
        ],
        "code",
    ),
    **dict.fromkeys([".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".css"], "code"),
}
"""What a file holds by the ending of its name."""

UNREAD = (".doc", ".pptx", ".xlsx", ".odt", ".epub")
"""Endings of documents that people may drop in and that are refused by name."""

_PACKED: dict[str, tuple[bytes, Callable[[str, bytes], tuple[str, str, tuple[Heading, ...]]]]] = {
    ".pdf": (b"%PDF-", pdf_text),
    ".docx": (b"PK\x03\x04", docx_text),
}
"""Forms that are no text: by their ending, how they begin and what reads them."""

_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive (DOCX, XLSX and EPUB are such)"),
    (b"\xd0\xcf\x11\xe0", "an old or encrypted Office document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "a database"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_document(name: str, data: bytes) -> Document:
    """The document that a file of this name holds. Raises ``InvalidRequest`` or ``TooLarge`` with the name in it."""
    if len(data) > MOST_BYTES:
        raise TooLarge(f"{name} has {len(data)} bytes; {MOST_BYTES} are the most that one document may have.")
    if not data.strip():
        raise InvalidRequest(f"{name} is empty.", code="document_empty")
    document = _read(name, data)
    if not document.text.strip():
        raise InvalidRequest(f"{name} holds no text.", code="document_empty")
    headings = tuple(replace(each, title=storable(each.title)) for each in document.headings)
    return replace(document, text=storable(document.text), title=storable(document.title), headings=headings)


def _read(name: str, data: bytes) -> Document:
    path = PurePath(name)
    if (packed := _PACKED.get(path.suffix.lower())) is not None and data.startswith(packed[0]):
        plain, title, headings = packed[1](name, data)
        kind = path.suffix.lower()[1:]
        return Document(text=plain, title=title or path.name, kind=kind, encoding="", headings=headings)
    for magic, what in _MAGIC:
        if data.startswith(magic):
            raise InvalidRequest(
                f"{name} is {what}, which is not read under this name; save it as text, Markdown or HTML.",
                code="document_unsupported",
            )
    if path.suffix.lower() in (*UNREAD, *_PACKED):
        raise InvalidRequest(
            f"{name} is not what its ending says; give it its right ending.",
            code="document_mistyped",
        )
    kind = KINDS.get(path.suffix.lower(), "text")
    text, encoding = decode(name, data)
    return _FORMS[kind](name, text, encoding)


def decode(name: str, data: bytes) -> tuple[str, str]:
    """The text of a file and its encoding: by its mark, else UTF-8, else GB18030. Raises ``InvalidRequest``."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decoded(name, data, encoding)
    if b"\0" in data[:8192]:
        raise InvalidRequest(f"{name} is binary or encrypted: it is no text in any form.", code="document_binary")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = _decoded(name, data, "gb18030")
    strange = sum(not (letter.isprintable() or letter.isspace()) for letter in text)
    if strange * 50 > len(text):
        raise InvalidRequest(f"{name} is binary or encrypted: it is no text in any form.", code="document_binary")
    return text, encoding


def _decoded(name: str, data: bytes, encoding: str) -> tuple[str, str]:
    try:
        return data.decode(encoding), encoding.removesuffix("-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{name} is neither UTF-8 nor {encoding} (byte {error.start}); save it as UTF-8.", code="document_encoding"
        ) from error


def _plain(kind: str) -> Callable[[str, str, str], Document]:
    def read(name: str, text: str, encoding: str) -> Document:
        return Document(text=text, title=PurePath(name).name, kind=kind, encoding=encoding)

    return read


def _markdown(name: str, text: str, encoding: str) -> Document:
    headings = markdown_headings(text)
    title = headings[0].title if headings else PurePath(name).name
    return Document(text=text, title=title, kind="markdown", encoding=encoding, headings=headings)


def _html(name: str, text: str, encoding: str) -> Document:
    plain, title, headings = html_text(text)
    title = title or (headings[0].title if headings else PurePath(name).name)
    return Document(text=plain, title=title, kind="html", encoding=encoding, headings=headings)


def _csv(name: str, text: str, encoding: str) -> Document:
    """Each row as ``column: value`` a line, so that a piece of the table says what its values are."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t" if name.lower().endswith(".tsv") else ","))
    except csv.Error as error:
        raise InvalidRequest(f"{name} is no CSV ({error}).", code="document_malformed") from error
    head, *rest = [row for row in rows if any(cell.strip() for cell in row)] or [[]]
    records = [
        "\n".join(f"{head[at] if at < len(head) else at + 1}: {cell}" for at, cell in enumerate(row) if cell.strip())
        for row in rest
    ]
    plain = "\n\n".join(records) if rest else ", ".join(head)
    return Document(text=plain, title=PurePath(name).name, kind="csv", encoding=encoding)


def _jsonl(name: str, text: str, encoding: str) -> Document:
    """Each line's value as ``field: text``, nested fields with dots."""
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append("\n".join(_leaves(json.loads(line))))
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{name}, line {number} is no JSON.", code="document_malformed") from error
    return Document(text="\n\n".join(records), title=PurePath(name).name, kind="jsonl", encoding=encoding)


def _leaves(value: Json, field: str = "") -> list[str]:
    if isinstance(value, dict):
        return [leaf for name, each in value.items() for leaf in _leaves(each, f"{field}.{name}" if field else name)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each, field)]
    if value is None or value == "":
        return []
    shown = value if isinstance(value, str) else json.dumps(value)
    return [f"{field}: {shown}" if field else shown]


_FORMS: dict[str, Callable[[str, str, str], Document]] = {
    "text": _plain("text"),
    "code": _plain("code"),
    "markdown": _markdown,
    "html": _html,
    "csv": _csv,
    "jsonl": _jsonl,
}
