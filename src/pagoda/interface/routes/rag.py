"""``/api/v1/rag``: documents taken into collections, found again, and asked with exact sources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Form, Path, Query, Request, UploadFile
from pydantic import ValidationError
from starlette.responses import Response

from pagoda.core.errors import ContextTooLong, InvalidRequest, LimitExceeded, NotFound, Rejected, UserError
from pagoda.core.types import Call
from pagoda.interface.access import key_of, models_of, needs, tenant_of
from pagoda.interface.context import Backstage, Route, asked_model, backstage, call_of, json_response
from pagoda.interface.routes.trust import policy_of
from pagoda.interface.schemas.rag import (
    AskAnswer,
    AskRequest,
    CollectionList,
    CollectionObject,
    CollectionRequest,
    Deleted,
    DocumentList,
    DocumentObject,
    DocumentText,
    IngestionReport,
    Narrowing,
    SearchAnswer,
    SearchRequest,
    Tagging,
)
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.interface.sse import EventStream, streamed, typed_frame, while_connected
from pagoda.logic.retrieval.question import Question

if TYPE_CHECKING:
    from pagoda.logic.retrieval.answering import Answerer, SourcedAnswer, Sources
    from pagoda.logic.retrieval.collection import Collection, DocumentRow, Tags

router = APIRouter(route_class=Route, prefix="/api/v1/rag", tags=["Retrieval"])

Stage = Annotated[Backstage, Depends(backstage)]
TheCall = Annotated[Call, Depends(call_of)]
Name = Annotated[str, Path(min_length=1, max_length=100)]
DocumentId = Annotated[str, Path(min_length=1, max_length=64)]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such thing."}}
_OTHER: dict[int | str, dict[str, Any]] = {409: {"model": ErrorAnswer, "description": "It is kept in another way."}}
_STREAM = streamed("The answer; with `stream: true` typed server-sent events: `sources`, `piece`s, `answer`.")


@router.get("/collections", response_model=CollectionList, summary="List collections")
@needs("inference")
async def list_collections(request: Request, stage: Stage) -> Response:
    """The team's collections, by name, with what this key may see of them."""
    found = await stage.retrieval.book.collections(tenant_of(request))
    return json_response({"object": "list", "data": [await _collection(stage, request, each) for each in found]})


@router.put(
    "/collections/{name}", response_model=CollectionObject, responses=_OTHER, summary="Make sure there is a collection"
)
@needs("operate")
async def ensure_collection(body: CollectionRequest, name: Name, request: Request, stage: Stage) -> Response:
    """A collection of that name, made if there is none; how its documents are split and embedded never changes."""
    from pagoda.logic.retrieval.collection import Plan  # noqa: PLC0415  (like all of retrieval, where it is used)

    model = stage.entry(body.model, "embedding", models_of(request)).id
    plan = Plan(model=model, limit=body.limit, overlap=body.overlap)
    made = await stage.retrieval.book.ensure(tenant_of(request), name, plan)
    return json_response(await _collection(stage, request, made))


@router.delete(
    "/collections/{name}", response_model=Deleted, responses=_MISSING, summary="Delete a collection with all it holds"
)
@needs("operate")
async def delete_collection(name: Name, request: Request, stage: Stage) -> Response:
    """All documents leave, those that this key may not see as well."""
    count = await stage.retrieval.book.delete(tenant_of(request), name)
    return json_response({"collection": name, "documents": count})


@router.get("/collections/{name}/documents", response_model=DocumentList, responses=_MISSING, summary="List documents")
@needs("inference")
async def list_documents(name: Name, request: Request, stage: Stage, call: TheCall) -> Response:
    """The documents of a collection, by source."""
    collection = await stage.retrieval.book.get(tenant_of(request), name)
    rows = await stage.retrieval.book.documents(collection, call.key_id)
    return json_response({"object": "list", "data": [row.to_json() for row in rows]})


@router.post(
    "/collections/{name}/documents", response_model=IngestionReport, responses=_MISSING, summary="Upload documents"
)
@needs("operate")
async def upload_documents(
    file: list[UploadFile],
    name: Name,
    request: Request,
    stage: Stage,
    call: TheCall,
    labels: Annotated[str | None, Form(description="A JSON object: texts by name.")] = None,
    keys: Annotated[str | None, Form(description="A JSON array: ids of the keys that may see them.")] = None,
) -> Response:
    """Files taken in under their names, in place of what came under these before; each that cannot be read is named."""
    from pagoda.logic.retrieval.ingestion import Report  # noqa: PLC0415
    from pagoda.logic.retrieval.reading import MOST_BYTES  # noqa: PLC0415

    if unknown := sorted(set(await request.form()) - {"file", "labels", "keys"}):
        raise InvalidRequest(f"There is no parameter {unknown[0]}.", param=unknown[0], code="unknown_parameter")
    tags = _tags(labels, keys)
    collection = await stage.retrieval.book.get(tenant_of(request), name)
    whole = Report()
    call = replace(call, purpose="ingestion")
    part = replace(call, parent=call.request_id)
    for each in file:
        source = each.filename or "document.txt"
        try:
            taken = stage.retrieval.ingestion.take_upload(
                collection, source, await each.read(MOST_BYTES + 1), part if whole.chunks else call, tags
            )
            whole.add(await while_connected(request, taken))
        except (NotFound, LimitExceeded):
            raise
        except (UserError, ContextTooLong, Rejected) as error:
            whole.failed.append((source, error.message))
    return json_response(whole.to_json())


@router.get(
    "/collections/{name}/documents/{document}",
    response_model=DocumentText,
    responses=_MISSING,
    summary="Read a document",
)
@needs("inference")
async def read_document(
    name: Name,
    document: DocumentId,
    request: Request,
    stage: Stage,
    call: TheCall,
    start: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> Response:
    """A document with its text, or the characters from ``start`` to ``end``."""
    row, collection = await _document(stage, request, call, name, document)
    text = await stage.retrieval.book.text(collection, row.id, call.key_id)
    first, last, _ = slice(start, end).indices(len(text))
    part = {"start": first, "end": max(first, last), "length": len(text), "text": text[first:last]}
    return json_response(row.to_json() | part)


@router.patch(
    "/collections/{name}/documents/{document}",
    response_model=DocumentObject,
    responses=_MISSING,
    summary="Label a document",
)
@needs("operate")
async def tag_document(
    body: Tagging, name: Name, document: DocumentId, request: Request, stage: Stage, call: TheCall
) -> Response:
    """Other labels, and other keys that may see it; it is not embedded again."""
    row, collection = await _document(stage, request, call, name, document)
    tags = body.plain()
    await stage.retrieval.book.tag(collection, row.source, tags)
    return json_response(replace(row, tags=tags).to_json())


@router.delete(
    "/collections/{name}/documents/{document}", response_model=Deleted, responses=_MISSING, summary="Delete a document"
)
@needs("operate")
async def delete_document(name: Name, document: DocumentId, request: Request, stage: Stage, call: TheCall) -> Response:
    """A document leaves, with all that is found by it."""
    row, collection = await _document(stage, request, call, name, document)
    count = await stage.retrieval.book.remove(collection, [row.source])
    return json_response({"collection": name, "documents": count})


@router.post("/search", response_model=SearchAnswer, responses=_MISSING, summary="Search a collection")
@needs("inference")
async def search_collection(body: SearchRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """The passages that are nearest to a question, by meaning and words."""
    refinement = body.refinement(_reranker(body, request, stage))
    search = stage.retrieval.searcher.search
    found = search(body.collection, body.query, call, limit=body.limit, mode=body.mode, refinement=refinement)
    hits = await while_connected(request, found)
    return json_response({"object": "list", "data": [hit.to_json() for hit in hits]})


@router.post("/ask", response_model=AskAnswer, responses=_STREAM | _MISSING, summary="Ask a collection")
@needs("inference")
async def ask_collection(body: AskRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """An answer whose citations stand for exact characters of documents, or that the documents do not say."""
    wordless = body.method == "quote" and not body.history  # a follow-up question is rewritten by the model
    model = None if wordless else asked_model(stage, request, call, body.model).id
    policy = None if body.trust is None else policy_of(stage, request, body.trust)
    answerer = await stage.retrieval.answerer(stage.prompts, call, model)
    question = Question(
        text=body.question,
        collection=body.collection,
        limit=body.limit,
        floor=body.floor,
        history=tuple(turn.model_dump() for turn in body.history),
        method=body.method,
        refinement=body.refinement(_reranker(body, request, stage)),
    )
    if not body.stream:
        answer = await while_connected(request, answerer.answer(question, call))
        if policy is None or answer.outcome != "answered":
            return json_response(_told(answer, body))
        part = replace(call, parent=call.request_id)
        scored = await while_connected(request, stage.trust.score_sourced(body.question, answer, part, policy))
        return json_response(_told(scored.answer_of(answer), body) | {"trust": scored.to_json()})
    frames = _frames(answerer, question, call, body)
    first = await while_connected(request, anext(frames))
    return EventStream(_after(first, frames), stage.settings.server.keepalive_seconds)


async def _frames(answerer: Answerer, question: Question, call: Call, body: AskRequest) -> AsyncIterator[bytes]:
    from pagoda.logic.retrieval.answering import Piece, Sources  # noqa: PLC0415

    async with aclosing(answerer.stream(question, call)) as said:
        async for each in said:
            if isinstance(each, Sources):
                yield typed_frame({"type": "sources", **_told(each, body)})
            elif isinstance(each, Piece):
                yield typed_frame({"type": "piece", "text": each.text})
            else:
                yield typed_frame({"type": "answer", **_told(each, body)})


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(rest) as frames:  # type: ignore[type-var]
        yield first
        async for each in frames:
            yield each


def _told(said: Sources | SourcedAnswer, body: AskRequest) -> dict[str, Any]:
    told = said.to_json()
    if not body.return_source_documents:
        del told["passages"]
    return told


def _reranker(body: Narrowing, request: Request, stage: Backstage) -> str | None:
    return None if body.reranker is None else stage.entry(body.reranker, "embedding", models_of(request)).id


def _tags(labels: str | None, keys: str | None) -> Tags | None:
    """What a form says of its files; ``None``: nothing, so that what was said before stays."""
    if labels is None and keys is None:
        return None
    try:
        said = {"labels": orjson.loads(labels or "{}"), "keys": orjson.loads(keys or "null")}
        return Tagging.model_validate(said).plain()
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise InvalidRequest(
            "labels is a JSON object with texts, and keys a JSON array of the ids of keys.", param="labels"
        ) from error


async def _collection(stage: Backstage, request: Request, collection: Collection) -> dict[str, Any]:
    key = key_of(request)
    rows = await stage.retrieval.book.documents(collection, None if key is None else key.id)
    return {
        "name": collection.name,
        **asdict(collection.plan),
        "documents": len(rows),
        "chunks": sum(row.chunks for row in rows),
        "created": collection.created.isoformat(),
    }


async def _document(
    stage: Backstage, request: Request, call: Call, name: str, document: str
) -> tuple[DocumentRow, Collection]:
    """A document that the key may see, and its collection. Raises ``NotFound``."""
    collection = await stage.retrieval.book.get(tenant_of(request), name)
    return await stage.retrieval.book.document(collection, document, call.key_id), collection
