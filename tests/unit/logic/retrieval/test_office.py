"""PDF and DOCX: their text, pages and headings, and what is wrong with them."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from typing import Any

import docx
import pytest
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from pypdf import PdfReader, PdfWriter
from pypdf.errors import DependencyError

from pagoda.core.errors import InvalidRequest, TooLarge
from pagoda.logic.retrieval import office
from pagoda.logic.retrieval.document import heading_at
from pagoda.logic.retrieval.reading import read_document


def pdf(*pages: str) -> bytes:
    """A PDF with these pages, each of one line."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, text in enumerate(pages):
        content = f"BT /F 12 Tf 72 700 Td ({text}) Tj ET"
        objects.append(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>"
            f"/Contents {5 + 2 * number} 0 R>>"
        )
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    out = "%PDF-1.4\n"
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{each}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    out += (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(out)}\n%%EOF"
    )
    return out.encode("latin-1")


def saved(made: Any) -> bytes:
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def written(title: str = "") -> bytes:
    made = docx.Document()
    made.core_properties.title = title
    made.add_heading("手册", 1)
    made.add_paragraph("Keys open doors.")
    made.add_heading("Revoke", 2)
    table = made.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "key", "value"
    made.add_paragraph("月亮很远。")
    return saved(made)


def test_a_pdf_is_its_pages() -> None:
    document = read_document("a.pdf", pdf("The first page.", "", "The third page."))
    assert (document.kind, document.title, document.encoding) == ("pdf", "a.pdf", "")
    assert document.text == "The first page.\n\f\n\fThe third page."
    assert heading_at(document.headings, document.text.index("third")) == "3/3"
    assert heading_at(document.headings, 0) == "1/3"


def test_a_docx_is_its_paragraphs_tables_and_headings() -> None:
    document = read_document("a.docx", written("The title"))
    assert (document.kind, document.title) == ("docx", "The title")
    assert document.text == "手册\n\nKeys open doors.\n\nRevoke\n\nkey\tvalue\n\n月亮很远。"
    assert heading_at(document.headings, document.text.index("月亮")) == "手册 > Revoke"
    assert read_document("a.docx", written()).title == "a.docx"


def test_a_merged_cell_of_a_docx_is_told_once() -> None:
    made = docx.Document()
    table = made.add_table(3, 3)
    for row, texts in zip(table.rows, (("Total", "", ""), ("Key", "a", "b"), ("", "c", "d")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.cell(0, 0).merge(table.cell(0, 2))
    table.cell(1, 0).merge(table.cell(2, 0))
    assert read_document("a.docx", saved(made)).text == "Total\nKey\ta\tb\nc\td"


def test_a_docx_is_not_as_wide_or_as_deep_as_it_says() -> None:
    made = docx.Document()
    table = made.add_table(1200, 1)
    for number, row in enumerate(table._tbl.tr_lst):
        merged = OxmlElement("w:vMerge")
        merged.set(qn("w:val"), "continue" if number else "restart")
        row.tc_lst[0].get_or_add_tcPr().append(merged)
    wide = OxmlElement("w:gridSpan")
    wide.set(qn("w:val"), "2000000000")
    table._tbl.tr_lst[0].tc_lst[0].get_or_add_tcPr().append(wide)
    table._tbl.tr_lst[0].tc_lst[0].p_lst[0].add_r().text = "once"
    assert read_document("a.docx", saved(made)).text == "once"


def test_a_docx_without_text_is_empty() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_document("a.docx", saved(docx.Document()))
    assert refused.value.code == "document_empty"


def test_a_locked_docx_is_named() -> None:
    whole = bytearray(written())
    for place in (each.start() for each in re.finditer(b"PK\x01\x02", bytes(whole))):
        whole[place + 8] |= 1  # the flag of an encrypted member
    with pytest.raises(InvalidRequest, match="no DOCX that can be read"):
        read_document("a.docx", bytes(whole))


def encrypted(password: str, algorithm: str) -> bytes:
    writer = PdfWriter(PdfReader(io.BytesIO(pdf("secret"))))
    writer.encrypt(password, algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_an_encrypted_pdf_is_named(algorithm: str) -> None:
    with pytest.raises(InvalidRequest, match="password") as refused:
        read_document("a.pdf", encrypted("password", algorithm))
    assert refused.value.code == "document_encrypted"
    assert read_document("a.pdf", encrypted("", algorithm)).text == "secret", "which opens without a password"


def test_a_pdf_for_a_certificate_is_named() -> None:
    handler = b"/Root 1 0 R/Encrypt<</Filter/Adobe.PubSec/V 4>>/ID[(a)(a)]>>"
    with pytest.raises(InvalidRequest, match="certificate") as refused:
        read_document("a.pdf", pdf("secret").replace(b"/Root 1 0 R>>", handler))
    assert refused.value.code == "document_encrypted"


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> None:
        raise DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr(PdfReader, "decrypt", lacking)
    with pytest.raises(InvalidRequest, match=r"pagoda-llm\[documents\]"):
        read_document("a.pdf", encrypted("", "AES-256"))


def test_a_title_that_no_database_keeps_is_mended() -> None:
    named = pdf("text").replace(b"/Root 1 0 R>>", b"/Root 1 0 R/Info<</Title(A\\000B)>>>>")
    assert read_document("a.pdf", named).title == "A\N{REPLACEMENT CHARACTER}B"


def test_a_scanned_pdf_is_named() -> None:
    with pytest.raises(InvalidRequest, match="2 pages") as refused:
        read_document("a.pdf", pdf("", ""))
    assert refused.value.code == "document_scanned"


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
def test_a_torn_file_is_named_wherever_it_is_torn(name: str) -> None:
    whole = pdf("One.", "Two.") if name == "a.pdf" else written()
    for place in range(8, len(whole) - 1, len(whole) // 9):
        try:
            document = read_document(name, whole[:place])
        except InvalidRequest as error:
            assert name in error.message  # noqa: PT017  (it may as well be read as far as it goes)
        else:
            assert document.text.strip()


def test_what_unpacks_to_too_much_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office, "MOST_UNPACKED_BYTES", 1_000_000)
    out = io.BytesIO(written())
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("word/bomb.xml", bytes(2_000_000))
    assert len(out.getvalue()) < 100_000
    with pytest.raises(TooLarge, match="unpacks to"):
        read_document("a.docx", out.getvalue())
    monkeypatch.setattr(office, "MOST_PAGES", 1)
    with pytest.raises(TooLarge, match="2 pages"):
        read_document("a.pdf", pdf("One.", "Two."))


@pytest.mark.parametrize(("name", "module"), [("a.pdf", "pypdf"), ("a.docx", "docx")])
def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidRequest, match=r"pagoda-llm\[documents\]"):
        read_document(name, pdf("x") if name == "a.pdf" else written())
