"""Candidates of a better prompt: the same file with other instructions and other examples, written as YAML again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.score import Case
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.prompts.rendering import language_of

INSTRUCTION = "instruction"
"""The part of a prompt that instruction variants replace; without one, its ``requirements``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a search chose: an instruction (``None``: the prompt's own), and examples in their order."""

    instruction: int | None = None
    examples: tuple[int, ...] = ()
    """Places in the pool; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What candidates are made of."""

    base: PromptVersion
    language: str
    instructions: tuple[str, ...]
    pool: tuple[Case, ...]
    """Cases whose expectations are known, to be shown as examples; never those that candidates are judged on."""

    def write(self, candidate: Candidate) -> PromptVersion:
        """The candidate as a prompt of its own. The base itself when nothing was chosen."""
        if candidate == Candidate():
            return self.base
        data: dict[str, Any] = yaml.safe_load(self.base.source)
        if candidate.instruction is not None:
            spoken = data["languages"][self.language]
            text = self.instructions[candidate.instruction]
            if INSTRUCTION in (spoken.get("parts") or {}):
                spoken["parts"][INSTRUCTION] = text
            else:
                spoken["requirements"] = text
        if candidate.examples:
            techniques = data.setdefault("techniques", {})
            shown = [self._example(self.pool[place]) for place in candidate.examples]
            techniques["few-shot"] = {"choose": "fixed", "count": len(shown), "examples": shown}
        source = yaml.dump(data, Dumper=_Blocks, allow_unicode=True, sort_keys=False, width=110)
        return read_prompt(source, self.base.prompt.name, tenant=self.base.tenant)

    def _example(self, case: Case) -> dict[str, Any]:
        variant = self.base.prompt.languages[self.language]
        known = {variable.name for variable in self.base.prompt.variables}
        values = {name: case.values[name] for name in sorted(variant.example.names & known) if name in case.values}
        return {**values, "answer": case.expected, "language": self.language}


class _Blocks(yaml.SafeDumper):
    """Writes texts of several lines as people do, as blocks."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _write_text)


def workbench(
    base: PromptVersion, language: str | None, instructions: Sequence[str], pool: Sequence[Case]
) -> Workbench:
    """The bench for a prompt. Raises ``InvalidRequest`` where it has no place for what shall be varied."""
    spoken = language_of(base.prompt, language)
    data: dict[str, Any] = yaml.safe_load(base.source)
    written = data["languages"][spoken]
    if instructions and INSTRUCTION not in (written.get("parts") or {}) and "task" not in written:
        raise InvalidRequest(
            f"{base.prompt.name} has no place for instructions in {spoken}: write it with task, input and "
            f"requirements, or with a part called {INSTRUCTION} that a message includes."
        )
    if any(case.expected is None for case in pool):
        raise InvalidRequest("Examples need what is expected; name its column with --expected.")
    return Workbench(base=base, language=spoken, instructions=tuple(instructions), pool=tuple(pool))
