"""The files of a run: whole documents, whole lines, numbers that JSON lacks, and metrics that were recorded twice."""

from __future__ import annotations

import errno
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest, StoreError
from pagoda.core.runs import files
from pagoda.core.runs.metrics import Summary, read_metrics, summarize
from pagoda.core.runs.record import check_config
from pagoda.core.setting_values import Secret

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(value=json_values)
def test_a_document_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    files.write_json(path, value, durable=False)
    assert files.read_json(path) == value
    assert check_config(value) == value


@settings(deadline=None)
@given(values=st.lists(json_values, max_size=6), torn=st.text(st.characters(exclude_characters="\n"), max_size=9))
def test_lines_come_back_whole_in_any_portion(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], torn: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.unlink(missing_ok=True)
    found, offset = [], 0
    for value in values:
        files.append_line(path, value)
        lines, offset = files.read_lines(path, offset)
        found += lines
    assert found == values
    with path.open("a", encoding="utf-8", errors="replace") as file:
        file.write(torn)
    assert files.read_lines(path, offset) == ([], offset)
    files.cut_torn_line(path)
    files.append_line(path, "next")
    assert files.read_lines(path, offset)[0] == ["next"]
    assert files.read_lines(path, 0)[0] == [*values, "next"]


def test_a_line_longer_than_a_portion_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, "x" * (3 << 20))
    files.append_line(path, "short")
    first, offset = files.read_lines(path, 0)
    second, _ = files.read_lines(path, offset)
    assert [len(line) for line in first + second] == [3 << 20, 5]


def test_a_line_that_is_not_json_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n\x00\x00\x00\n{"b": 2}\n')
    assert files.read_lines(path, 0)[0] == [{"a": 1}, {"b": 2}]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, {"step": 1})
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:5]))
    with pytest.raises(StoreError, match=r"disk is full.*resume the run") as caught:
        files.append_line(path, {"step": 2})
    assert caught.value.code == "store_full"
    assert path.read_text() == '{"step": 1}\n'


def test_a_full_disk_leaves_the_old_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    files.write_json(path, {"status": "running"})

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        files.write_json(path, {"status": "done"})
    assert files.read_json(path) == {"status": "running"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_directory_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    for write in (files.write_json, files.append_line):
        with pytest.raises(StoreError, match="is gone") as caught:
            write(tmp_path / "deleted" / "file", 1)
        assert caught.value.code == "run_gone"
    assert not (tmp_path / "deleted").exists()


@settings(deadline=None)
@given(st.floats())
def test_every_number_survives_json(value: float) -> None:
    found = files.decode_number(json.loads(json.dumps(files.encode_number(value), allow_nan=False)))
    assert found == value or (math.isnan(found) and math.isnan(value))


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"a": {"key": Secret("hunter2")}}, r"config\.a\.key is a secret"),
        ({"a": [1, {2, 3}]}, r"config\.a\[1\]"),
        ({"rate": math.nan}, r"config\.rate = nan"),
        ({1: 2}, "keys must be texts"),
    ],
)
def test_a_config_that_cannot_be_kept_is_refused_by_its_place(config: Any, place: str) -> None:
    with pytest.raises(InvalidRequest, match=place) as caught:
        check_config(config)
    assert "hunter2" not in str(caught.value)


def write_points(path: Path, points: list[tuple[int, int, float]]) -> None:
    for attempt, step, value in points:
        line = {
            "step": step,
            "time": datetime.now(UTC).isoformat(),
            "attempt": attempt,
            "values": {"loss": files.encode_number(value)},
        }
        files.append_line(path, line)


def test_steps_done_again_replace_those_of_the_attempt_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_points(path, [(1, step, 1.0) for step in range(1, 8)] + [(2, 6, 2.0), (2, 7, 2.0), (3, 7, 3.0), (3, 8, 3.0)])
    found = [(point.attempt, point.step) for point in read_metrics(path)]
    assert found == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 6), (3, 7), (3, 8)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=5))
def test_a_resumed_series_equals_an_undisturbed_one(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[tuple[int, int]]
) -> None:
    """Attempts that each go on from an earlier checkpoint, whatever was recorded beyond it."""
    path = tmp_path_factory.getbasetemp() / "resumed.jsonl"
    path.unlink(missing_ok=True)
    checkpoint, points = 0, []
    for attempt, (length, saved) in enumerate(attempts, 1):
        points += [(attempt, step, float(step)) for step in range(checkpoint + 1, checkpoint + length + 1)]
        last, checkpoint = checkpoint + length, checkpoint + min(saved, length)
    write_points(path, points)
    assert [point.step for point in read_metrics(path)] == list(range(1, last + 1))


def test_metrics_that_are_garbage_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('[]\n{"step": "x"}\n{"values": {"a": "b"}, "step": 1, "time": "2026-01-01", "attempt": 1}\nnull\n')
    write_points(path, [(1, 1, math.nan), (1, 2, 4.0), (1, 3, 2.0), (1, 4, math.inf)])
    assert summarize(read_metrics(path)) == {"loss": Summary(math.inf, 2.0, math.inf)}
    assert read_metrics(tmp_path / "missing.jsonl") == []


def test_all_lines_come_back_of_however_long_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert files.read_all_lines(path) == []
    values = [{"row": number, "text": "x" * 1000} for number in range(3000)]  # more than is read at once
    path.write_text("".join(json.dumps(each) + "\n" for each in values) + '{"row": 30', encoding="utf-8")
    assert files.read_all_lines(path) == values
    assert files.resume_lines(path) == values
    assert path.read_text(encoding="utf-8").endswith("}\n"), "the torn line is cut off"
