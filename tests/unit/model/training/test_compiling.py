"""Compiled layers train as those that are not: whatever else the recipe asks, one code for equal layers.

The captured graphs are run as they are: what is captured is ours to decide. torch's own compiler takes most of a minute
here; ``benchmarks/training/gpu_all.sh --tiny`` runs it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from pagoda.core.errors import InvalidRequest
from pagoda.core.runs.metrics import read_metrics
from pagoda.model.training.compiling import compile_layers
from tests.unit.model.training.conftest import Train

KINDS: dict[str, dict[str, Any]] = {
    "full": {"method": "full", "packing": True, "accumulation": 2, "max_length": 128, "steps": 2},
    "lora": {"method": "lora", "checkpointing": True, "steps": 1},
}


def losses(folder: Path) -> list[float]:
    return [point.values["loss"] for point in read_metrics(folder / "metrics.jsonl") if "loss" in point.values]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has graphs run as captured; gives a number for each."""
    graphs: list[int] = []
    real = torch.compile

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(len(graphs))
        return graph.forward

    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest would keep megabytes of it
    monkeypatch.setattr(torch, "compile", lambda work, **how: real(work, backend=backend, **how))
    torch.compiler.reset()
    return graphs


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # which the compiler looks at
@pytest.mark.parametrize(("family", "kind"), [("llama", "full"), ("llama", "lora"), ("gpt2", "full")])
def test_compiled_layers_train_as_others_do(
    fit: Train, gpt2: Path, rows: Path, captured: list[int], family: str, kind: str
) -> None:
    given = KINDS[kind] | ({"model": str(gpt2)} if family == "gpt2" else {"data": {"validation": str(rows)}})
    plain, compiled = fit("plain", **given), fit("compiled", compile=True, **given)
    assert losses(compiled[1]) == pytest.approx(losses(plain[1]), rel=1e-4)
    assert compiled[0]["after"] == pytest.approx(plain[0]["after"], rel=1e-4)
    names = [sorted(path.name for path in (each[1] / "artifacts").rglob("*")) for each in (plain, compiled)]
    assert names[0] == names[1]
    assert 0 < len(captured) <= 8, "a code for each way of use, not for each layer"


def test_a_model_whose_layers_are_not_known_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.config = type("Config", (), {"model_type": "oddity"})()
    with pytest.raises(InvalidRequest, match=r"oddity repeats is not known.*compile=false"):
        compile_layers(model)
