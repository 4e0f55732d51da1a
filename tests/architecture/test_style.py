"""Rules that can be checked by eye, checked by machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pagoda.core import errors
from pagoda.core.errors import PagodaError
from tests.architecture.source import PACKAGE, ROOT, files, name, tree

MOST_LINES = 400
MOST_FUNCTION_LINES = 60
REASON = "longer than"
"""Words of a docstring that go on to say why this is so long."""

VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc"}
REGISTRIES = re.compile(
    r"pypi\.|pythonhosted|registry\.npmjs|unpkg\.com|jsdelivr|cdnjs|esm\.sh|skypack|"
    r"docker\.io|ghcr\.io|quay\.io|gcr\.io|conda\.anaconda|download\.pytorch\.org",
    re.IGNORECASE,
)


def test_modules_are_short_or_say_why_not() -> None:
    long = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files() if not _excused(path)}
    assert {path: lines for path, lines in long.items() if lines > MOST_LINES} == {}


def _excused(path: Path) -> bool:
    return REASON in (ast.get_docstring(tree(path)) or "").lower()


def test_functions_are_short_or_say_why_not() -> None:
    long = [
        f"{name(path)}: {node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
        for path in files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_FUNCTION_LINES
        and REASON not in (ast.get_docstring(node) or "").lower()
    ]
    assert long == []


def test_every_module_says_what_it_is() -> None:
    silent = [name(path) for path in files() if path.stat().st_size and not ast.get_docstring(tree(path))]
    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {name(path) for path in files() if VAGUE & set(re.split(r"[/_.]", name(path)))}
    assert names == set()


def test_no_file_names_a_registry() -> None:
    vendored = PACKAGE / "interface" / "web" / "vendor"
    guilty = []
    for path in sorted(PACKAGE.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        if vendored in path.parents:  # what others wrote may say where it comes from, but must not load from there
            continue
        guilty += [f"{name(path)}: {found[0]}" for found in REGISTRIES.finditer(text)]
    assert guilty == []


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:│   |    )*(?:[├└]── )?)([A-Z]\w+)\s{2,}\S", line):
            depth, child = len(found[1]) // 4, found[2]
            while above and above[-1][0] >= depth:
                above.pop()
            drawn[child] = above[-1][1] if above else "Exception"
            above.append((depth, child))
    real = {
        kind.__name__: kind.__bases__[0].__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert drawn == real


def _family(kind: type[PagodaError]) -> list[type[PagodaError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _family(child))]


@pytest.mark.parametrize("kind", _family(PagodaError), ids=lambda kind: kind.__name__)
def test_errors_have_a_code_for_programs(kind: type[PagodaError]) -> None:
    assert re.fullmatch(r"[a-z][a-z_]*", kind.code)
    assert isinstance(kind.retryable, bool)


def test_all_errors_of_the_package_are_in_the_tree() -> None:
    """Exceptions that are not errors (control signals) stay private or say so."""
    loose = []
    for path in files():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ClassDef) or name(path) == "core/errors.py":
                continue
            bases = {ast.unparse(base) for base in node.bases}
            if bases & {"Exception", "BaseException", "RuntimeError", "ValueError", "OSError"}:
                loose.append((name(path), node.name, ast.get_docstring(node) or ""))
    assert [(path, kind) for path, kind, said in loose if not kind.startswith("_") and "signal" not in said] == []


def test_the_readme_of_the_distribution_is_there() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").startswith("# Pagoda")
