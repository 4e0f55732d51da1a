"""Every promised behaviour names the tests that show it: ``tests/requirements.d/*.yaml``, one list of rows a file."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from typing import Any

import pytest
import yaml

from tests.architecture.source import ROOT

FOLDER = ROOT / "tests" / "requirements.d"
STOREYS = ("core", "model", "service", "logic", "interface", "application", "cli", "project")


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert isinstance(content, list), f"{path.name} is not a list of requirements"
        found += content
    return found


@cache
def functions_in(file: str) -> frozenset[str]:
    """Names of a file's tests, those of classes as ``Class::test``."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{item.name}" for item in node.body if _is_test(item)}  # type: ignore[attr-defined]
        elif isinstance(node, ast.Assign):  # TestMachine = Machine.TestCase, as Hypothesis wants it
            names |= {target.id for target in node.targets if isinstance(target, ast.Name) and target.id[:4] == "Test"}
        elif _is_test(node):
            names.add(node.name)  # type: ignore[attr-defined]
    return frozenset(names)


def _is_test(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def test_ids_are_unique() -> None:
    assert [name for name, count in Counter(row["id"] for row in rows()).items() if count > 1] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row.get("id")))
def test_a_requirement_is_a_sentence_with_tests_that_exist(row: dict[str, Any]) -> None:
    assert set(row) == {"id", "storey", "says", "tests"}
    assert row["storey"] in STOREYS
    assert row["says"].rstrip().endswith("."), "a requirement is a sentence"
    assert row["tests"], "a requirement without a test is a wish"
    missing = []
    for test in row["tests"]:
        file, _, function = test.partition("::")
        if function.partition("[")[0] not in functions_in(file):
            missing.append(test)
    assert missing == []


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert "test_ids_are_unique" in functions_in("tests/architecture/test_requirements.py")
    assert "test_nobody_wrote_this" not in functions_in("tests/architecture/test_requirements.py")
    assert functions_in("tests/architecture/test_nothing.py") == frozenset()
