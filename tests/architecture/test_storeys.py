"""Each storey stands only on those below; `lint-imports` shows it in `make check`, and here is what it cannot see."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from pagoda.model.engines import KINDS, engine_kind
from tests.architecture.source import PACKAGE, ROOT, files, imported_at_module_level, name, tree

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "vllm", "ray")
MAY_IMPORT_HEAVY = (
    "model/training/",
    "model/alignment/",
    "model/longcontext/",
    "model/quantize/",
    "model/engines/transformers",
)
READS_ENVIRONMENT = {
    "cli/context.py": "hands it to load_settings",
    "cli/serve.py": "hands it to the platform, which passes it to engines and finds remote keys by name",
    "cli/chat.py": "hands it to a service process that it may start",
    "cli/bench.py": "hands it to a service process that it may start, and finds a peer's key by name",
    "cli/cache.py": "hands it to a service process that it may start",
    "cli/agents.py": "hands it to a service process that it may start",
    "cli/rag.py": "hands it to a service process that it may start",
    "cli/trust.py": "hands it to a service process that it may start",
    "cli/doctor.py": "hands it to the checks",
    "application/distilling.py": "hands it to a service process that a run may start",
    "application/client.py": "pagoda.connect() is a program's command line",
    "application/batching.py": "hands it to a service process that a run may start",
    "cli/reviews.py": "hands it to a service process that a judge may start",
    "application/comparing.py": "hands it to a service process that a run may start",
    "application/improving.py": "hands it to a service process that a run may start",
    "application/optimizing.py": "PromptOptimizer is a program's command line",
    "application/retrieving.py": "hands it to a service process that a run may start",
    "application/examining.py": "hands it to a service process that a run may start",
    "cli/tools.py": "hands it to a service process that a tool may start",
    "application/acting.py": "hands it to a service process that a run may start",
    "application/evaluating.py": "hands it to a service process that a run may start",
    "application/augmenting.py": "hands it to a service process that a run may start",
    "application/searching.py": "hands it to trials, each with the GPU that is its",
    "model/training/launching.py": "says to OpenMP, before it is loaded, how threads wait",
    "model/training/distributed.py": "is the command line of a process that torchrun starts",
    "model/engines/vllm_key.py": "runs inside vLLM's server, which can be told a secret in no other way",
    "service/process.py": "passes it on to engine processes",
}
TARGET = re.compile(r"pagoda(?:\.\w+)+:\w+")


def contracts() -> list[dict[str, object]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, object]] = settings["tool"]["importlinter"]["contracts"]
    return found


def storeys() -> list[str]:
    (layers,) = [contract["layers"] for contract in contracts() if contract["type"] == "layers"]
    assert isinstance(layers, list)
    return layers


def targets() -> list[tuple[Path, str]]:
    """Every string in the source that names something of ours, as registries hold them."""
    return [
        (path, node.value)
        for path in files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and TARGET.fullmatch(node.value)
    ]


def test_the_contract_lists_every_package() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(storeys())
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules == {"__init__", "__main__"}, "a module beside the storeys belongs to none of them"


def test_every_target_in_a_registry_resolves_and_points_downward() -> None:
    order = storeys()
    found = targets()
    assert {target for _, target in found} >= set(KINDS.values())
    for path, target in found:
        module, _, attribute = target.partition(":")
        assert callable(getattr(import_module(module), attribute)), target
        here, there = name(path).split("/")[0], module.split(".")[1]
        assert order.index(here) <= order.index(there), f"{name(path)} looks up to {target}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_kind_can_be_made_under_its_name(kind: str) -> None:
    made = engine_kind(kind)
    assert made.name == kind
    assert made.runs in ("process", "remote")


def test_torch_is_imported_at_module_level_only_where_it_is_the_subject() -> None:
    guilty = [
        f"{name(path)} imports {module}"
        for path in files()
        if not name(path).startswith(MAY_IMPORT_HEAVY)
        for module in imported_at_module_level(tree(path).body)
        if module.split(".")[0] in HEAVY
    ]
    assert guilty == []


def test_only_the_edges_read_the_environment() -> None:
    readers = {name(path) for path in files() if _reads_environment(tree(path))}
    assert readers == set(READS_ENVIRONMENT), "settings reach all others as values"


def _reads_environment(module: ast.Module) -> bool:
    names = ("environ", "getenv", "environb")
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os" and node.attr in names:
            return True
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(alias.name in names for alias in node.names)
        ):
            return True
    return False
