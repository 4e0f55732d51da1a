"""Files of rows in every kind, and what is wrong in them, named by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import InvalidRequest, NotFound, StoreError
from pagoda.model.data.reading import read_data, write_rows
from pagoda.model.data.rows import Refused, Row, conversation_fault, row_from
from tests.rows import write_jsonl

CHAT = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    ("record", "form"),
    [
        ({"messages": CHAT}, "chat"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "chat"),
        ({"prompt": "a", "completion": "b"}, "completion"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"text": "a", "label": 1}, "classification"),
        ({"text": "a"}, "text"),
    ],
)
def test_each_form_is_known_by_its_columns(record: dict[str, Any], form: str) -> None:
    row = row_from(record, 1)
    assert isinstance(row, Row)
    assert row.form == form
    assert row.text


PARTS = [{"type": "text", "text": "你好"}, {"type": "text", "text": "there"}]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a\nb"),
        ({"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a\nb"),
        ({"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "a\nb"),
        ({"messages": [{"role": "user", "content": PARTS}, CHAT[1]]}, "你好\nthere\nHello"),
        ({"chosen": [{"role": "assistant", "content": PARTS}], "rejected": CHAT[1:]}, "你好\nthere\nHello"),
        ({"instruction": "Add", "input": "1 2", "output": "3"}, "Add\n\n1 2\n3"),
        ({"instruction": "Greet", "input": "", "output": "Hi", "id": 1}, "Greet\nHi"),
    ],
)
def test_rows_in_the_words_of_other_tools_are_taken(record: dict[str, Any], text: str) -> None:
    row = row_from(record, 1)
    assert isinstance(row, Row)
    assert row.text == text
    if row.form == "chat":
        assert conversation_fault(row.content["messages"]) is None


def test_a_part_that_is_no_text_and_an_empty_label_are_told() -> None:
    seen = {"role": "user", "content": [{"type": "image", "url": "x"}, PARTS[0]]}
    assert conversation_fault([seen, CHAT[1]]) == "message 1 (user) holds something other than text"
    refused = row_from({"text": "a", "label": " "}, 1)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.why) == ("empty", "its label is empty")


def test_columns_under_other_names_are_taken() -> None:
    row = row_from({"question": "a", "answer": "b", "id": 7}, 1, columns={"prompt": "question", "completion": "answer"})
    assert isinstance(row, Row)
    assert dict(row.content) == {"prompt": "a", "completion": "b", "id": 7}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_the_same_rows_are_read_from_each_kind(tmp_path: Path, kind: str) -> None:
    rows = [{"text": "退款，请", "label": "money"}, {"text": 'say "hi"\nnow', "label": "talk"}]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        write_jsonl(path, rows)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    found = read_data(str(path))
    assert [dict(row.content) for row in found.rows] == rows
    assert (found.form, found.refused) == ("classification", ())


def test_a_file_that_changes_its_form_is_refused_from_there_on_by_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"prompt": "a", "completion": "b"}\n{"text": "another form"}\nno json\n["list"]\n\xff\xfe\n'
        b'{"prompt": 3, "completion": "b"}\n\n{"prompt": "c", "completion": "d"}\n'
    )
    found = read_data(str(path))
    assert [row.number for row in found.rows] == [1, 7]
    assert [(each.number, each.reason) for each in found.refused] == [
        (2, "form"),
        (3, "unreadable"),
        (4, "unreadable"),
        (5, "unreadable"),
        (6, "type"),
    ]
    assert "no prompt" in found.refused[0].why
    assert "looks like text" in found.refused[0].why


def test_a_table_whose_lines_do_not_fit_its_head_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\na,1\nb\nc,1,2\n\xff,1\n")
    found = read_data(str(path))
    assert [row.number for row in found.rows] == [1]
    assert [(each.number, each.reason) for each in found.refused] == [(n, "unreadable") for n in (2, 3, 4)]


def test_a_long_field_of_a_table_is_read_and_a_broken_line_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\n{'long ' * 40_000},1\n")
    assert len(read_data(str(path)).rows[0].text) == 200_000
    path.write_text(f"text,label\na,1\n{'x' * (17 * 1024 * 1024)},1\n")
    with pytest.raises(InvalidRequest, match="line 3 is no line of a table"):
        read_data(str(path))


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_half_a_character_is_refused_by_row(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    lines = ['{"text": "whole \\ud83d\\ude00"}', '{"text": "half \\ud83d"}']
    path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    found = read_data(str(path))
    assert [row.text for row in found.rows] == ["whole 😀"]
    assert [(each.number, each.reason) for each in found.refused] == [(2, "unreadable")]
    assert r"'\ud83d'" in found.refused[0].why


def test_what_is_no_file_of_rows_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no file"):
        read_data(str(tmp_path / "none.jsonl"))
    (tmp_path / "rows.txt").write_text("a")
    with pytest.raises(InvalidRequest, match=r"there are \.jsonl"):
        read_data(str(tmp_path / "rows.txt"))
    (tmp_path / "rows.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="is not a list"):
        read_data(str(tmp_path / "rows.json"))
    (tmp_path / "rows.parquet").write_text("{}")
    with pytest.raises(StoreError, match="no Parquet"):
        read_data(str(tmp_path / "rows.parquet"))
    with pytest.raises(StoreError, match="could not be written"):
        write_rows(tmp_path / "rows.json" / "inside.jsonl", [])


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ("", "is empty"),
        ("ss", "system message"),
        ("uu", "both from the user"),
        ("a", "no user asked"),
        ("uaa", "no user asked"),
        ("ut", "no assistant called"),
        ("uau", "ends with a message of the user"),
        ("uax", "roles are"),
        ("sua", None),
        ("uaua", None),
        ("uata", None),
    ],
)
def test_conversations_out_of_order_say_where(roles: str, said: str | None) -> None:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "x": "bot"}
    fault = conversation_fault([{"role": names[role], "content": "x"} for role in roles])
    assert fault is None if said is None else said in str(fault)
