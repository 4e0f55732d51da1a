"""The tables of what this Pagoda can do, as names of functions: nothing is imported before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagoda.core.runs import RunTarget


def run_kinds() -> Mapping[str, RunTarget]:
    """Kinds of run: the name that users see, and ``package.module:function``."""
    return {
        "augmentation": "pagoda.application.augmenting:run_augmentation",
        "batch": "pagoda.application.batching:run_batch",
        "bfcl": "pagoda.application.evaluating:run_bfcl",
        "comparison": "pagoda.application.comparing:run_comparison",
        "distillation": "pagoda.application.distilling:run_distillation",
        "export": "pagoda.application.exporting:run_export",
        "injections": "pagoda.application.acting:run_injections",
        "ingestion": "pagoda.application.retrieving:run_ingestion",
        "improvement": "pagoda.application.improving:run_improvement",
        "multihop": "pagoda.application.acting:run_multihop",
        "quantisation": "pagoda.application.quantizing:run_quantisation",
        "retrieval-exam": "pagoda.application.examining:run_exam",
        "sft": "pagoda.model.training.launching:run_sft",
        "tune": "pagoda.application.searching:run_tune",
    }
