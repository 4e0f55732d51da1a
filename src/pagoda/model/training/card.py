"""The model card of what was trained, written from what happened: recipe, data, supervision, figures, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pagoda.core.types import Json


def model_card(base: str, recipe: Mapping[str, Json], outcome: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """A README in the hub's form. ``outcome`` is the result of the run."""
    head: dict[str, Any] = {
        "base_model": base,
        "library_name": outcome["library"],
        "tags": ["pagoda", recipe["method"]],
    }
    learnt = outcome["supervision"]
    refused = ", ".join(f"{count} for {reason}" for reason, count in learnt["refused"].items()) or "none"
    lines = [
        "---",
        yaml.safe_dump(head, allow_unicode=True, sort_keys=False).strip(),
        "---",
        "",
        f"# {base}, fine-tuned ({recipe['method']})",
        "",
        f"Trained by Pagoda: {outcome['steps']} steps in {outcome['seconds']:.0f} s on {outcome['device']} "
        f"({outcome['precision']}), seed {outcome['seed']}.",
        "",
        "## Data",
        "",
        f"{learnt['rows']} rows of `{recipe['data']['train']}`, refused: {refused}. "
        f"{learnt['supervised']} of {learnt['tokens']} tokens carried loss; "
        f"{learnt['truncated']} rows were cut at {recipe['max_length']} tokens; "
        f"{learnt['unended']} do not teach their end. "
        f"Of {learnt['validation']} validation rows {learnt['trained']} are trained on too.",
        "",
        "## Results",
        "",
        *_table(outcome),
        "",
        "Not measured: anything that is not in this table.",
        "",
        "## Recipe",
        "",
        "```yaml",
        yaml.safe_dump(dict(recipe), allow_unicode=True, sort_keys=False).strip(),
        "```",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _table(outcome: Mapping[str, Any]) -> list[str]:
    before, after = outcome["before"], outcome["after"]
    if not after:
        return [f"Training loss at the end: {outcome['loss']:.4f}. There was no validation data."]
    rows = [
        f"| {name.removeprefix('eval_')} | {before[name]:.4f} | {after[name]:.4f} |" for name in after if name in before
    ]
    return ["| On validation data | Before | After |", "|---|---|---|", *rows]
