"""Data sets: four forms, columns that are missing, encodings that are mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.dataset import Source, read_cases

FORMS = {
    "d.jsonl": '{"text": "good", "label": 1}\n\n{"text": "差", "label": 0}\n',
    "d.json": '[{"text": "good", "label": 1}, {"text": "差", "label": 0}]',
    "d.csv": 'text,label\n"good",1\n差,0\n',
    "d.tsv": "text\tlabel\ngood\t1\n差\t0\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_four_forms_say_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMS[name], encoding="utf-8")
    source = Source(path=str(path), expected="label", columns={"review": "text"}, replaced={"0": "bad", "1": "good"})
    assert [(case.values["review"], case.expected) for case in read_cases(source)] == [("good", "good"), ("差", "bad")]


def test_marks_and_other_encodings_are_read(tmp_path: Path) -> None:
    for number, encoding in enumerate(("utf-8-sig", "utf-16", "gb18030")):
        path = tmp_path / f"{number}.csv"
        path.write_text(FORMS["d.csv"], encoding=encoding)
        source = Source(path=str(path), encoding="gb18030" if encoding == "gb18030" else "utf-8")
        assert read_cases(source)[1].values["text"] == "差"


def test_a_part_is_drawn_by_the_seed_and_stays_in_order(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("n\n" + "\n".join(map(str, range(100))), encoding="utf-8")
    first, again, other = (read_cases(Source(path=str(path), limit=10, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert [int(case.id) for case in first] == sorted(int(case.id) for case in first)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2: there is no column 'label'; it has: text"),
        ("d.jsonl", b'{"text": "a", "label": null}\n', "line 1: 'label' is empty"),
        ("d.jsonl", b'{"text": "a", "label": 1}\nnot json\n', "line 2: this is not JSON"),
        ("d.jsonl", b"[1]\n", "line 1: a case is an object"),
        (
            "d.jsonl",
            b'{"id": 1, "text": "a", "label": 1}\n{"id": 1, "text": "b", "label": 1}\n',
            "'1' stands there twice",
        ),
        ("d.jsonl", b"\n\n", "holds no cases"),
        ("d.json", b"{}", "must hold a list"),
        ("d.csv", "text,label\n好,1\n".encode() + "坏,0\n".encode("gbk"), "line 3: this is not UTF-8"),
        ("d.csv", b"text,label\na,1,2\n", "line 2: it has 3 columns, the first line names 2"),
        ("d.csv", b"text,text\na,1\n", "line 1: every column needs a name of its own"),
        ("d.csv", b'text,label\n"a,1\n', "line"),
        ("d.xlsx", b"x", ".xlsx is not read"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidRequest) as refused:
        read_cases(Source(path=str(path), expected="label", columns={"review": "text"}))
    assert said in refused.value.message


def test_unknown_encodings_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_cases(Source(path=str(tmp_path / "nothing.csv")))
    with pytest.raises(InvalidRequest, match="is not read; use one of"):
        read_cases(Source(path=str(tmp_path / "nothing.csv"), encoding="ebcdic"))
