"""Prompts and their changes as JSON, for the API and for commands; and the difference of two versions."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pagoda.logic.prompts.asking import PromptAnswer
from pagoda.logic.prompts.composing import Composed
from pagoda.logic.prompts.prompt import PromptVersion, Techniques, Variable

if TYPE_CHECKING:
    from pagoda.logic.prompts.book import Change


def prompt_json(version: PromptVersion, labels: Mapping[str, int], *, source: bool = False) -> dict[str, Any]:
    """A version of a prompt; ``labels`` are those of the prompt, with the versions that they mean."""
    prompt = version.prompt
    told: dict[str, Any] = {
        "object": "prompt",
        "name": prompt.name,
        "version": version.version,
        "description": prompt.description,
        "origin": "team" if version.tenant else "packaged",
        "languages": list(prompt.languages),
        "variables": [_variable_json(variable) for variable in prompt.variables],
        "techniques": techniques_of(prompt.techniques),
        "tags": list(prompt.tags),
        "labels": dict(labels),
        "digest": version.digest,
        "created": None if version.created is None else version.created.isoformat(),
        "note": version.note,
    }
    return told | {"source": version.source} if source else told


def techniques_of(used: Techniques) -> list[str]:
    """The names of the techniques that are used; ``zero-shot`` where there is none."""
    names = {
        "few-shot": used.few_shot,
        "chain-of-thought": used.chain_of_thought,
        "self-consistency": used.self_consistency,
        "structured-output": used.structured_output,
    }
    return [name for name, given in names.items() if given is not None] or ["zero-shot"]


def change_json(change: Change) -> dict[str, Any]:
    """A line of a prompt's history."""
    return {**asdict(change), "at": change.at.isoformat()}


def composed_json(composed: Composed) -> dict[str, Any]:
    """A prompt that was made ready."""
    rendered, request = composed.rendered, composed.generation()
    settings = {
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "top_k": request.sampling.top_k,
        "seed": request.sampling.seed,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop) or None,
    }
    return {
        "object": "prompt.rendered",
        "name": rendered.version.prompt.name,
        "version": rendered.version.version,
        "language": rendered.language,
        "model": composed.model,
        "messages": [dict(message) for message in rendered.messages],
        "settings": {name: value for name, value in settings.items() if value is not None},
        "tokens": composed.tokens,
        "context": composed.context,
        "examples": len(rendered.examples),
        "dropped_examples": composed.dropped,
        "trimmed": list(composed.trimmed),
    }


def answer_json(composed: Composed, answer: PromptAnswer) -> dict[str, Any]:
    """What a prompt gave."""
    counted = answer.vote
    return {
        "object": "prompt.answer",
        "name": composed.rendered.version.prompt.name,
        "version": composed.rendered.version.version,
        "language": composed.rendered.language,
        "model": answer.model,
        "answer": answer.answer,
        "text": answer.text,
        "finish_reason": answer.finish,
        "vote": None if counted is None else asdict(counted) | {"texts": list(answer.texts)},
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
    }


def difference(before: PromptVersion, after: PromptVersion) -> str:
    """What changed between two versions, as a unified diff of their files; empty where nothing did."""
    lines = difflib.unified_diff(
        before.source.splitlines(), after.source.splitlines(), before.reference, after.reference, lineterm=""
    )
    return "\n".join(lines)


def _variable_json(variable: Variable) -> dict[str, Any]:
    told = {name: value for name, value in asdict(variable).items() if value not in (None, (), {}, "")}
    return told | {"choices": list(variable.choices)} if variable.choices else told
