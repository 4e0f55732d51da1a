"""The package's source as architecture tests read it: files, syntax trees, modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "pagoda"


def files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path: Path) -> str:
    """A file as the package sees it, for example ``core/errors.py``."""
    return path.relative_to(PACKAGE).as_posix()


def imported_at_module_level(body: list[ast.stmt]) -> Iterator[str]:
    """Modules that importing this code imports; what only a type checker sees does not count."""
    for statement in body:
        match statement:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, _, 0) if module:
                yield module
            case ast.If(test, inner, other):
                if "TYPE_CHECKING" not in ast.unparse(test):
                    yield from imported_at_module_level(inner)
                yield from imported_at_module_level(other)
            case ast.Try(inner, handlers, other, last) | ast.TryStar(inner, handlers, other, last):
                yield from imported_at_module_level(inner + other + last)
                for handler in handlers:
                    yield from imported_at_module_level(handler.body)
            case ast.With(_, inner) | ast.ClassDef(body=inner):
                yield from imported_at_module_level(inner)
