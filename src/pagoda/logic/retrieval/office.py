"""The text of PDF and DOCX files, by pypdf and python-docx (the extra ``documents``).

Where pages are known they are headings, so that a passage names its page. Not here: pictures of text (nothing reads
them), how a page looks.
"""

from __future__ import annotations

import io
import logging
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pagoda.core.errors import InvalidRequest, TooLarge
from pagoda.logic.retrieval.document import Heading

if TYPE_CHECKING:
    from pypdf import PdfReader

MOST_UNPACKED_BYTES = 512 * 1024 * 1024
"""Of all that a DOCX file holds: a small file can unpack to far more than memory has."""
MOST_PAGES = 5000

_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # among them RecursionError and NotImplementedError
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Beside errors of their own, what the libraries' code raises when it meets what a broken file holds."""

_PAGE = "\f"  # ends one, as in plain text
_STYLED = "Heading "


class Sheets:
    """A text that grows, with the headings in it."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self._pieces: list[str] = []
        self._length = 0

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    def add(self, text: str) -> None:
        """Add text at the end."""
        self._pieces.append(text)
        self._length += len(text)

    def head(self, level: int, title: str) -> None:
        """What comes now stands under this heading."""
        if title.strip():
            self.headings.append(Heading(level, title.strip(), self._length))


def pdf_text(name: str, data: bytes) -> tuple[str, str, tuple[Heading, ...]]:
    """The text of a PDF, page by page, its title, and its pages as headings.

    Raises ``InvalidRequest`` for one that is encrypted, broken or holds no text, ``TooLarge``.
    """
    with _extra(name, "PDF"):
        from pypdf import PdfReader  # noqa: PLC0415  (an extra)
        from pypdf.errors import DependencyError, PyPdfError  # noqa: PLC0415
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells at length of what it could mend
    sheets = Sheets()
    try:
        reader = _opened(PdfReader, name, data)
        pages = len(reader.pages)
        if pages > MOST_PAGES:
            raise TooLarge(f"{name} has {pages} pages; {MOST_PAGES} are the most that one document may have.")
        title = str(reader.metadata.title or "") if reader.metadata else ""
        for number, page in enumerate(reader.pages, 1):
            sheets.head(1, f"{number}/{pages}")
            sheets.add((page.extract_text() or "").strip() + (f"\n{_PAGE}" if number < pages else ""))
    except DependencyError as error:  # of AES without cryptography, which the extra brings
        raise _lacking(name, "PDF") from error
    except (PyPdfError, *_BROKEN) as error:
        raise InvalidRequest(
            f"{name} is no PDF that can be read ({type(error).__name__}).", code="document_malformed"
        ) from error
    if not sheets.text.strip().strip(_PAGE).strip():
        raise InvalidRequest(
            f"{name} holds no text on its {pages} pages; pictures of text, such as scans, are not read.",
            code="document_scanned",
        )
    return sheets.text, title.strip(), tuple(sheets.headings)


def _opened(kind: type[PdfReader], name: str, data: bytes) -> PdfReader:
    """A PDF's reader. Raises ``InvalidRequest`` for one that opens with a password or a certificate alone."""
    try:
        reader = kind(io.BytesIO(data))
        encrypted = reader.is_encrypted and not reader.decrypt("")
    except NotImplementedError:  # what is not encrypted by the standard's own handler
        encrypted = True
    if encrypted:
        raise InvalidRequest(
            f"{name} is encrypted; take its password or certificate away first.", code="document_encrypted"
        )
    return reader


def docx_text(name: str, data: bytes) -> tuple[str, str, tuple[Heading, ...]]:
    """The text of a DOCX file, its title, and its headings. Tables come row by row, cells apart by tabs.

    Raises ``InvalidRequest`` for one that is broken, ``TooLarge`` for one that unpacks to too much.
    """
    with _extra(name, "DOCX"):
        import docx  # noqa: PLC0415  (an extra)
        from docx.opc.exceptions import OpcError  # noqa: PLC0415
    from lxml.etree import LxmlError  # noqa: PLC0415  (it comes with docx)

    sheets = Sheets()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > MOST_UNPACKED_BYTES:
            raise TooLarge(f"{name} unpacks to {unpacked} bytes; {MOST_UNPACKED_BYTES} are the most that is read.")
        opened = docx.Document(io.BytesIO(data))
        for level, text in _blocks(opened.iter_inner_content()):
            if level:
                sheets.head(level, text)
            sheets.add(text + "\n\n")
        title = opened.core_properties.title or ""
    except (OpcError, LxmlError, zipfile.BadZipFile, *_BROKEN) as error:
        raise InvalidRequest(
            f"{name} is no DOCX that can be read ({type(error).__name__}).", code="document_malformed"
        ) from error
    text = sheets.text.rstrip()
    return text, title.strip(), tuple(each for each in sheets.headings if each.start < len(text))


def _blocks(content: Iterable[Any]) -> Iterator[tuple[int, str]]:
    """Paragraphs and rows of tables in order, with the level of those that are headings, else 0."""
    for block in content:
        if hasattr(block, "rows"):
            yield 0, "\n".join(_rows(block))
            continue
        text: str = block.text
        if not text.strip():
            continue
        style: str = block.style.name if block.style is not None else ""
        number = style.removeprefix(_STYLED)
        level = 1 if style == "Title" else int(number) if style.startswith(_STYLED) and number.isdigit() else 0
        yield level, text


def _rows(table: Any) -> Iterator[str]:
    """Each cell once, where a merged one begins: ``row.cells`` repeats it as often as the file says it is wide."""
    for row in table._tbl.tr_lst:
        cells = (cell for cell in row.tc_lst if cell.vMerge != "continue")
        yield "\t".join("\n".join(each.text for each in cell.p_lst).strip() for cell in cells)


@contextmanager
def _extra(name: str, form: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise _lacking(name, form) from error


def _lacking(name: str, form: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is a {form}, which needs an extra: pip install 'pagoda-llm[documents]'.", code="document_unsupported"
    )
