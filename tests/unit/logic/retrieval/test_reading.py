"""Files read as documents: every form, encodings, and what is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest, TooLarge
from pagoda.logic.retrieval import reading
from pagoda.logic.retrieval.document import heading_at
from pagoda.logic.retrieval.reading import read_document

MARKDOWN = """\
# Guide

Words.

```sh
# no heading
```

## Install ##

More words.

# 附录
"""

PAGE = """<!doctype html><html><head><title>A &amp; B</title><style>p {}</style></head><body>
<h1>The   heading</h1><p>First <b>bold</b> word.</p><script>alert("<p>no</p>")</script>
<ul><li>one</li><li>two</li></ul><pre>a
  b</pre><h2>第二节</h2><p>正文。</p></body></html>"""


def test_markdown_keeps_its_text_and_knows_its_headings() -> None:
    document = read_document("guide.md", MARKDOWN.encode())
    assert document.text == MARKDOWN
    assert document.title == "Guide"
    assert [(each.level, each.title) for each in document.headings] == [(1, "Guide"), (2, "Install"), (1, "附录")]
    assert all(MARKDOWN[each.start] == "#" for each in document.headings)
    assert heading_at(document.headings, MARKDOWN.index("More")) == "Guide > Install"
    assert heading_at(document.headings, len(MARKDOWN)) == "附录"
    assert heading_at((), 3) == ""


def test_html_is_read_without_what_nobody_sees() -> None:
    document = read_document("page.html", PAGE.encode())
    assert document.title == "A & B"
    assert document.text == "The heading\n\nFirst bold word.\n\none\ntwo\n\na\n  b\n\n第二节\n\n正文。"
    for heading in document.headings:
        assert document.text[heading.start :].startswith(heading.title)
    assert [each.title for each in document.headings] == ["The heading", "第二节"]


def test_tables_and_lines_of_json_say_what_their_values_are() -> None:
    table = read_document("t.csv", b'name,age\n"Li, Na",40\nBo,\n')
    assert table.text == "name: Li, Na\nage: 40\n\nname: Bo"
    assert read_document("t.tsv", b"a\tb\n1\t2\n").text == "a: 1\nb: 2"
    lines = read_document(
        "t.jsonl", '{"q": "谁？", "meta": {"n": 1, "tags": ["a", "b"], "no": null}}\n\n"x"\n'.encode()
    )
    assert lines.text == "q: 谁？\nmeta.n: 1\nmeta.tags: a\nmeta.tags: b\n\nx"


@pytest.mark.parametrize(
    ("encoding", "told"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("utf-32", "utf-32"), ("gb18030", "gb18030")],
)
def test_encodings_are_detected_and_told(encoding: str, told: str) -> None:
    document = read_document("a.txt", "量子计算机\nquantum".encode(encoding))
    assert (document.text, document.encoding) == ("量子计算机\nquantum", told)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.txt", b"", "document_empty"),
        ("a.txt", b" \n\t", "document_empty"),
        ("a.html", b"<script>x</script>", "document_empty"),
        ("a.pdf", b"%PDF-1.7 ...", "document_malformed"),
        ("a.txt", b"%PDF-1.7 ...", "document_unsupported"),
        ("a.docx", b"PK\x03\x04...", "document_malformed"),
        ("a.docx", b"\xd0\xcf\x11\xe0...", "document_unsupported"),
        ("a.pdf", b"plain words", "document_mistyped"),
        ("a.md", bytes(range(256)) * 4, "document_binary"),
        ("a.txt", b"caf\xe9", "document_encoding"),
        ("a.txt", "good".encode("utf-16")[:-1], "document_encoding"),
        ("a.jsonl", b'{"a": 1}\n{"a":', "document_malformed"),
        ("a.jsonl", b"[" * 100_000, "document_malformed"),
        ("a.csv", b"a,b\n1," + b"x" * 200_000, "document_malformed"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, data: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest, match=name) as refused:
        read_document(name, data)
    assert refused.value.code == code


def test_a_huge_file_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 10)
    with pytest.raises(TooLarge, match="11 bytes"):
        read_document("a.txt", b"x" * 11)


@given(st.binary(max_size=300), st.sampled_from([*reading.KINDS, *reading.UNREAD, ""]))
def test_no_bytes_crash_a_reader(data: bytes, ending: str) -> None:
    try:
        document = read_document("a" + ending, data)
    except InvalidRequest:
        return
    assert document.text.strip()
    assert "\0" not in document.text
    assert all(0 <= each.start < len(document.text) for each in document.headings)
