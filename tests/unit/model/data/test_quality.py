"""Duplicates with their partners, languages, garbage, personal data, and what filter and report make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.model.data.duplicates import find_duplicates
from pagoda.model.data.filtering import Wanted, filter_rows
from pagoda.model.data.quality import garbage_in, language_of, personal_in
from pagoda.model.data.reading import DataSet, read_data
from pagoda.model.data.report import check, lengths_of
from pagoda.model.data.rows import Row
from tests.rows import write_jsonl

LONG = "The warehouse sends every parcel on the same day if the order comes before noon, also on Saturdays."
CHINESE = "如果订单在中午之前到达，仓库会在当天发出每一个包裹，星期六也一样，不需要另外付费。"


def texts(*given: str, source: str = "a") -> list[Row]:
    return [Row(number, "text", {"text": text}, source) for number, text in enumerate(given, 1)]


def test_duplicates_name_their_partner_and_how_alike_they_are() -> None:
    rows = texts(
        LONG, "another", LONG.upper() + " ", LONG.replace("noon", "nine"), CHINESE, CHINESE.replace("六", "日")
    )
    kept, matches = find_duplicates(rows, threshold=0.7)
    assert [row.number for row in kept] == [1, 2, 5]
    assert [(each.row.number, each.partner.number, each.exact) for each in matches] == [
        (3, 1, True),
        (4, 1, False),
        (6, 5, False),
    ]
    assert all(0.7 <= each.similarity < 1 for each in matches[1:])
    assert find_duplicates(rows, threshold=0.7) == (kept, matches), "the same every time"


def test_rows_of_a_test_set_are_found_in_the_training_set() -> None:
    _, matches = find_duplicates(texts("fresh text", LONG, source="train"), against=texts("x", LONG, source="test"))
    assert [(each.row.number, each.partner.source, each.partner.number) for each in matches] == [(2, "test", 2)]


@given(st.lists(st.text("abc ", max_size=30), max_size=12))
@settings(max_examples=40)
def test_what_stays_has_no_equal_texts_and_no_text_is_lost(given_texts: list[str]) -> None:
    rows = texts(*given_texts)
    kept, matches = find_duplicates(rows)
    assert len(kept) + len(matches) == len(rows)
    assert len({" ".join(row.text.split()) for row in kept}) == len(kept)
    assert {each.partner.number for each in matches} <= {row.number for row in kept}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I get my money back?", "en"),
        ("怎么退款？", "zh"),
        ("请安装 Python 和 pip", "zh"),
        ("これはテストです", "ja"),
        ("안녕하세요", "ko"),
        ("Где мой заказ?", "ru"),
        ("Wo ist das Paket, das ich gestern bei euch bestellt habe und noch nicht bekam", "latin"),
        ("12345 !!", "none"),
    ],
)
def test_languages_are_told(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cafÃ© au lait", "decoded wrongly"),
        ("broken \ufffd sign", "decoded wrongly"),
        ("锟斤拷锟斤拷", "decoded wrongly"),
        ("bell \x07", "control"),
        ("no" + "o" * 30, "repeats 'o' 31 times"),
        ("@@## $$%% ^^&& **(( ))__ ++==", "signs"),
        ("<div><span></span></div><div><p>hi</p></div>", "markup"),
        ("buy now cheap " * 12, "repeats itself"),
        (LONG, None),
        (CHINESE, None),
        ("def f(x):\n\treturn x + 1", None),
        ("", None),
    ],
)
def test_garbage_is_told_from_text(text: str, said: str | None) -> None:
    found = garbage_in(text)
    assert found is None if said is None else said in str(found)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to li.lei@example.com", ["email"]),
        ("call 13812345678 now", ["phone"]),
        ("call +44 20 7946 0958", ["phone"]),
        ("card 4111 1111 1111 1111", ["card"]),
        ("card 4111 1111 1111 1112", []),
        ("身份证 11010519491231002X", ["chinese_id"]),
        ("身份证 110105194912310021", []),
        ("IBAN DE89 3704 0044 0532 0130 00", ["iban"]),
        ("host 192.168.1.20", ["ip"]),
        ("version 1.2.3, 2026-11-29, 1000000 rows", []),
    ],
)
def test_personal_data_are_found_by_forms_that_can_be_checked(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in personal_in(text)] == kinds


def messy(folder: Path) -> Path:
    rows = [
        {"prompt": "What do you send?", "completion": LONG},
        {"prompt": "what do you send? ", "completion": LONG},
        {"prompt": "mail", "completion": "to a@example.com, please"},
        {"prompt": "", "completion": ""},
        {"text": "another form"},
        {"prompt": "怎么发货？", "completion": CHINESE},
        {"prompt": "x", "completion": "z" * 50},
    ]
    return write_jsonl(folder / "messy.jsonl", rows)


def test_the_report_counts_and_names_every_row(tmp_path: Path) -> None:
    report = check(read_data(str(messy(tmp_path))), count=lambda text: len(text.split()))
    assert (report.rows, report.usable, report.form) == (7, 6, "completion")
    assert [(each.row, each.reason) for each in report.findings] == [
        (2, "duplicate"),
        (3, "personal"),
        (4, "empty"),
        (5, "form"),
        (7, "garbage"),
    ]
    assert report.findings[0].why == "it is the same as row 1"
    assert report.languages["zh"] == 1
    assert report.characters is not None
    assert sum(count for _, _, count in report.characters.histogram) == 6
    assert report.tokens is not None
    assert report.tokens.least == 0


def test_what_is_removed_keeps_its_reason_and_its_content(tmp_path: Path) -> None:
    data = read_data(str(messy(tmp_path)))
    done = filter_rows(data, Wanted(languages=("en",)))
    assert [row.number for row in done.kept] == [1, 3]
    assert [(each["row"], each["reason"]) for each in done.removed] == [
        (2, "duplicate"),
        (4, "empty"),
        (5, "form"),
        (6, "language"),
        (7, "garbage"),
    ]
    assert done.removed[3]["content"]["completion"] == CHINESE
    assert len(done.kept) + len(done.removed) == data.count
    private = filter_rows(data, Wanted(remove=("personal",), least=5))
    assert [each["reason"] for each in private.removed] == ["personal", "too_short", "form"]
    with pytest.raises(InvalidRequest, match="no reason 'ugly'"):
        Wanted(remove=("ugly",))


@given(st.lists(st.sampled_from([LONG, f"{LONG}\x07", f"{LONG} Again.", "", f"\ufffd{LONG}", CHINESE]), max_size=8))
@settings(max_examples=25)
def test_what_repeats_a_faulty_row_stays_and_of_what_stays_nothing_would_go(given_texts: list[str]) -> None:
    data = DataSet("a", "text", tuple(texts(*given_texts)), ())
    done = filter_rows(data, Wanted())
    assert not check(DataSet("a", "text", done.kept, ())).findings
    sound = {LONG, f"{LONG} Again.", CHINESE} & set(given_texts)
    assert len(done.kept) == bool(sound & {LONG, f"{LONG} Again."}) + (CHINESE in sound)
    assert {each["row"] for each in done.removed} == {each.row for each in check(data).findings}, "as the report says"


def test_a_leak_from_a_test_set_is_removed(tmp_path: Path) -> None:
    data = read_data(str(messy(tmp_path)))
    test = read_data(str(write_jsonl(tmp_path / "test.jsonl", [{"prompt": "怎么发货？", "completion": CHINESE}])))
    assert filter_rows(data, Wanted(), against=test).reasons["leak"] == 1


def test_labels_are_counted_with_their_balance(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "c.jsonl",
        ({"text": f"number {n * 7919}", "label": n % 4 > 0} | {"label": str(n % 4 > 0)} for n in range(8)),
    )
    report = check(read_data(str(path)))
    assert report.labels == {"True": 6, "False": 2}
    assert report.imbalance == 3


def test_one_text_with_two_labels_is_a_conflict_and_one_word_more_no_duplicate(tmp_path: Path) -> None:
    said = "The parcel came in time and everything in it was whole"
    rows = [(said, "good"), (f"{said}, not", "bad"), (said.upper(), "bad"), (said, "good"), (f"{said}.", "good")]
    path = write_jsonl(tmp_path / "c.jsonl", ({"text": text, "label": label} for text, label in rows))
    data = read_data(str(path))
    found = check(data).findings
    assert [(each.row, each.reason) for each in found] == [
        (3, "label_conflict"),
        (4, "duplicate"),
        (5, "near_duplicate"),
    ]
    assert found[0].why == "it is the same as row 1, but its label is bad and not good"
    assert [row.number for row in filter_rows(data, Wanted()).kept] == [1, 2]


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=50))
@settings(max_examples=40)
def test_the_histogram_holds_every_row(values: list[int]) -> None:
    lengths = lengths_of(values)
    assert lengths is not None
    assert sum(count for _, _, count in lengths.histogram) == len(values)
    assert lengths.least <= lengths.percentiles["p50"] <= lengths.most
