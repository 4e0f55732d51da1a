"""``/api/v1/prompts``: prompts kept in versions, what their labels mean, filled in and asked.

A team sees its own prompts and those that come with Pagoda. Whoever may ask a model may use prompts; to change them
needs the scope ``operate``.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from starlette.responses import Response

from pagoda.core.types import Call
from pagoda.interface.access import author_of, models_of, needs, tenant_of
from pagoda.interface.context import Backstage, Route, backstage, call_of, json_response
from pagoda.interface.prompted import PROMPT_HEADER
from pagoda.interface.schemas.prompts import (
    LabelMove,
    LabelNote,
    PromptAnswer,
    PromptChange,
    PromptDiff,
    PromptHistory,
    PromptImport,
    PromptList,
    PromptSource,
    PromptTry,
    RenderedPrompt,
    SavedPrompt,
)
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.interface.sse import while_connected
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composed, Use
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.form import LABEL_PATTERN, NAME_PATTERN
from pagoda.logic.prompts.library import from_library, library_names
from pagoda.logic.prompts.prompt import PromptReference, PromptVersion
from pagoda.logic.prompts.view import answer_json, change_json, composed_json, difference, prompt_json

if TYPE_CHECKING:
    from pagoda.logic.prompts.book import Author

router = APIRouter(route_class=Route, tags=["Prompts"])

Stage = Annotated[Backstage, Depends(backstage)]
Caller = Annotated[Call, Depends(call_of)]
Name = Annotated[str, Path(pattern=NAME_PATTERN)]
LabelName = Annotated[str, Path(pattern=LABEL_PATTERN)]
Number = Annotated[int, Query(ge=1, le=2**31 - 1)]
_MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such prompt, version or label."}
}
_MOVED: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "The label means another version by now, or nothing was before."}
}


@router.get("/api/v1/prompts", response_model=PromptList, summary="List prompts")
@needs("inference")
async def list_prompts(stage: Stage, call: Caller) -> Response:
    """The team's prompts and those that come with Pagoda, by name, as they are live now."""
    own = stage.prompts.names(call.tenant)
    listed = []
    for name in sorted({*own, *library_names()}):
        found = await stage.prompts.resolve(PromptReference(name=name), call)
        listed.append(prompt_json(found, own[name].labels if name in own else {}))
    return json_response({"object": "list", "data": listed})


@router.post("/api/v1/prompts", response_model=SavedPrompt, summary="Keep a prompt")
@needs("operate")
async def save_prompt(body: PromptImport, request: Request, stage: Stage) -> Response:
    """Keep a prompt as its next version; one that says what the newest says already is that one."""
    author = _author(request, body.note)
    read = await asyncio.to_thread(read_prompt, body.source, tenant=author.tenant)  # long YAML takes a while
    version, saved = await stage.prompt_book.save(read, author)
    if body.label is not None:
        await stage.prompt_book.move(version.prompt.name, body.label, version.version, author)
    await stage.prompts.refresh()
    labels = stage.prompts.names(author.tenant)[version.prompt.name].labels
    return json_response(prompt_json(version, labels) | {"saved": saved})


@router.get("/api/v1/prompts/{name}", response_model=PromptSource, responses=_MISSING, summary="Show a prompt")
@needs("inference")
async def show_prompt(
    name: Name, stage: Stage, call: Caller, version: Number | None = None, label: str | None = None
) -> Response:
    """A prompt with its file: by version or label, else as it is live."""
    found = await stage.prompts.resolve(PromptReference(name=name, version=version, label=label), call)
    own = stage.prompts.names(call.tenant)
    return json_response(prompt_json(found, own[name].labels if name in own else {}, source=True))


@router.get("/api/v1/prompts/{name}/versions", response_model=PromptList, responses=_MISSING, summary="List versions")
@needs("inference")
async def list_versions(name: Name, stage: Stage, call: Caller) -> Response:
    """All versions of a prompt, newest first."""
    own = stage.prompts.names(call.tenant)
    if name in own:
        found = await stage.prompt_book.versions(call.tenant, name)
        return json_response({"object": "list", "data": [prompt_json(each, own[name].labels) for each in found]})
    packaged = await stage.prompts.resolve(PromptReference(name=name), call)
    return json_response({"object": "list", "data": [prompt_json(packaged, {})]})


@router.get(
    "/api/v1/prompts/{name}/history", response_model=PromptHistory, responses=_MISSING, summary="Read the history"
)
@needs("inference")
async def read_history(
    name: Name, stage: Stage, call: Caller, label: Annotated[str | None, Query(pattern=LABEL_PATTERN)] = None
) -> Response:
    """What was kept and moved, newest first."""
    lines = await stage.prompt_book.history(call.tenant, name, label)
    if not lines and from_library(name) is None:
        await stage.prompts.resolve(PromptReference(name=name), call)
    return json_response({"object": "list", "data": [change_json(line) for line in lines]})


@router.get("/api/v1/prompts/{name}/diff", response_model=PromptDiff, responses=_MISSING, summary="Compare versions")
@needs("inference")
async def show_difference(name: Name, stage: Stage, call: Caller, before: Number, after: Number) -> Response:
    """What changed between two versions, as a unified diff of their files."""
    old, new = [
        await stage.prompts.resolve(PromptReference(name=name, version=number), call) for number in (before, after)
    ]
    told = {"object": "prompt.diff", "name": name, "before": before, "after": after, "diff": difference(old, new)}
    return json_response(told)


@router.post(
    "/api/v1/prompts/{name}/labels/{label}",
    response_model=PromptChange,
    responses=_MISSING | _MOVED,
    summary="Move a label",
)
@needs("operate")
async def move_label(name: Name, label: LabelName, body: LabelMove, request: Request, stage: Stage) -> Response:
    """Let a label mean a version from now on, in every process."""
    author = _author(request, body.note)
    change = await stage.prompt_book.move(name, label, body.version, author, expected=body.expected)
    await stage.prompts.refresh()
    return json_response(change_json(change))


@router.post(
    "/api/v1/prompts/{name}/labels/{label}/rollback",
    response_model=PromptChange,
    responses=_MISSING | _MOVED,
    summary="Take a label back",
)
@needs("operate")
async def roll_back(
    name: Name,
    label: LabelName,
    request: Request,
    stage: Stage,
    body: Annotated[LabelNote | None, Body()] = None,
) -> Response:
    """Let a label mean again what it meant before its last move."""
    change = await stage.prompt_book.roll_back(name, label, _author(request, (body or LabelNote()).note))
    await stage.prompts.refresh()
    return json_response(change_json(change))


@router.delete(
    "/api/v1/prompts/{name}/labels/{label}", response_model=PromptChange, responses=_MISSING, summary="Remove a label"
)
@needs("operate")
async def remove_label(name: Name, label: LabelName, request: Request, stage: Stage) -> Response:
    """Take a label away; without ``production`` the newest version is live."""
    change = await stage.prompt_book.remove(name, label, _author(request, ""))
    await stage.prompts.refresh()
    return json_response(change_json(change))


@router.post(
    "/api/v1/prompts/{name}/render", response_model=RenderedPrompt, responses=_MISSING, summary="Fill a prompt in"
)
@needs("inference")
async def render_prompt(name: Name, body: PromptTry, request: Request, stage: Stage, call: Caller) -> Response:
    """The messages that a model would get, and their tokens; nothing is asked."""
    composed = await while_connected(request, _compose(name, body, request, stage, call))
    return json_response(composed_json(composed), _headers(composed.rendered.version))


@router.post("/api/v1/prompts/{name}/run", response_model=PromptAnswer, responses=_MISSING, summary="Ask a prompt")
@needs("inference")
async def run_prompt(name: Name, body: PromptTry, request: Request, stage: Stage, call: Caller) -> Response:
    """Ask a model with a prompt and all of its techniques: samples are voted on, the answer is found in the text."""

    async def asked() -> Response:
        composed = await _compose(name, body, request, stage, replace(call, parent=call.request_id))
        answer = await ask(composed, stage.inference, call)
        return json_response(answer_json(composed, answer), _headers(composed.rendered.version))

    return await while_connected(request, asked())


async def _compose(name: str, body: PromptTry, request: Request, stage: Backstage, call: Call) -> Composed:
    version = await stage.prompts.resolve(PromptReference(name=name, version=body.version, label=body.label), call)
    use = Use(
        version=version,
        values=body.given(),
        language=body.language,
        model=stage.entry(body.model or version.prompt.settings.model, "chat", models_of(request)).id,
        max_tokens=body.max_tokens,
    )
    return await stage.composer.compose(use, call)


def _headers(version: PromptVersion) -> dict[str, str]:
    return {PROMPT_HEADER: version.reference}


def _author(request: Request, note: str) -> Author:
    from pagoda.logic.prompts.book import Author  # noqa: PLC0415  (it brings the database)

    return Author(tenant_of(request), author_of(request), note)
