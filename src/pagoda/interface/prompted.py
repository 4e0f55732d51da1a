"""A chat request that names a kept prompt, as the request that it stands for.

What the request itself says wins over what the prompt says; messages that it brings follow those of the prompt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from pagoda.core.types import Call
from pagoda.interface.schemas.chat import ChatMessage, ChatRequest
from pagoda.interface.schemas.prompts import NamedPrompt
from pagoda.interface.schemas.shared import JsonSchema, ResponseFormat
from pagoda.logic.prompts.composing import Composed, Composer, Use
from pagoda.logic.prompts.prompt import PromptReference, PromptVersion
from pagoda.logic.prompts.resolving import PromptSource

PROMPT_HEADER = "X-Pagoda-Prompt"
"""Which version answered, as ``summary@3``."""


class FindModel(Protocol):
    """The id of a chat model by its name, or of the default one. Raises ``NotFound``."""

    def __call__(self, name: str | None) -> str:
        """Find it."""
        ...


async def with_prompt(
    body: ChatRequest, named: NamedPrompt, call: Call, source: PromptSource, ready: tuple[Composer, FindModel]
) -> tuple[ChatRequest, Call]:
    """The request with the prompt's messages and settings in it, and the call that tells which version it was."""
    composer, find_model = ready
    reference = PromptReference(name=named.name, version=named.version, label=named.label)
    version = await source.resolve(reference, call)
    use = Use(
        version=version,
        values=named.given(),
        language=named.language,
        model=find_model(body.model or version.prompt.settings.model),
        max_tokens=body.max_completion_tokens or body.max_tokens,
    )
    composed = await composer.compose(use, replace(call, parent=call.request_id), count=False)
    return _merged(body, composed, version), replace(call, prompt=version.reference)


def _merged(body: ChatRequest, composed: Composed, version: PromptVersion) -> ChatRequest:
    given = version.prompt.settings
    settings: dict[str, Any] = {
        "temperature": given.temperature,
        "top_p": given.top_p,
        "top_k": given.top_k,
        "seed": given.seed,
        "stop": list(given.stop) or None,
        "response_format": _format(version),
    }
    if body.max_completion_tokens is None:
        settings["max_tokens"] = given.max_tokens
    taken = {name: value for name, value in settings.items() if value is not None and getattr(body, name) is None}
    said = [ChatMessage.model_validate(message) for message in composed.rendered.messages]
    return body.model_copy(
        update={**taken, "model": composed.model, "messages": [*said, *body.messages], "prompt": None}
    )


def _format(version: PromptVersion) -> ResponseFormat | None:
    structured = version.prompt.techniques.structured_output
    if structured is None:
        return None
    form = JsonSchema.model_validate({"name": structured.name, "schema": dict(structured.schema)})
    return ResponseFormat(type="json_schema", json_schema=form)
