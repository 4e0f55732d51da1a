"""Tools from an OpenAPI 3 document: each operation one tool, its parameters and JSON body as arguments.

``GET`` and ``HEAD`` are read-only, ``PUT`` and ``DELETE`` idempotent, as HTTP has it; all that are not read-only need
approval. The host must be one that tools may ask. Not here: authentication, cookies, other bodies than JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import yaml

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Json
from pagoda.logic.tools.fetching import Web
from pagoda.logic.tools.tool import Occasion, Tool

_METHODS = ("get", "post", "put", "patch", "delete")
_BODY = "body"


def read_operations(name: str, path: Path, web: Web) -> list[Tool]:
    """The tools of a document. Raises ``InvalidRequest`` for a file that is none."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f"tools.openapi: {path} cannot be read as an OpenAPI document ({error}).") from error
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise InvalidRequest(f"tools.openapi: {path} is no OpenAPI document: it has no paths.")
    servers = document.get("servers") or [{}]
    root = str(servers[0].get("url", "")).rstrip("/")
    web.check(root + "/")
    return list(_operations(name, document, root, web))


def _operations(name: str, document: Mapping[str, Any], root: str, web: Web) -> Iterator[Tool]:
    for path, operations in document["paths"].items():
        shared = operations.get("parameters", [])
        for method in _METHODS:
            if method in operations:
                operation = operations[method]
                given = [_resolved(document, each) for each in (*shared, *operation.get("parameters", []))]
                yield _tool(name, document, (root, path, method), operation, given, web)


def _tool(
    name: str,
    document: Mapping[str, Any],
    place: tuple[str, str, str],
    operation: Mapping[str, Any],
    given: list[Mapping[str, Any]],
    web: Web,
) -> Tool:
    root, path, method = place
    places = {parameter["name"]: parameter.get("in", "query") for parameter in given}

    async def perform(arguments: Mapping[str, Any], occasion: Occasion) -> Json:
        url, query, headers = root + path, {}, {"Idempotency-Key": occasion.key} if occasion.key else {}
        for key, value in arguments.items():
            match places.get(key):
                case "path":
                    url = url.replace(f"{{{key}}}", quote(_text(value), safe=""))
                case "query":
                    query[key] = _text(value)
                case "header":
                    headers[key] = _text(value)
        _, text = await web.ask(method.upper(), url, query, body=arguments.get(_BODY), headers=headers)
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text  # an answer need not be JSON; as text it is shown as well

    own = operation.get("operationId") or f"{method}_{re.sub(r'[^a-zA-Z0-9]+', '_', path).strip('_')}"
    reads = method == "get"
    return Tool(
        name=f"{name}.{re.sub(r'[^a-zA-Z0-9_.-]', '_', own)}"[:128],
        description=operation.get("summary") or operation.get("description") or f"{method.upper()} {path}",
        parameters=_arguments(document, operation, given),
        perform=perform,
        read_only=reads,
        idempotent=method in ("get", "put", "delete"),
        needs_approval=not reads,
    )


def _arguments(
    document: Mapping[str, Any], operation: Mapping[str, Any], given: list[Mapping[str, Any]]
) -> dict[str, Any]:
    """JSON Schema of an operation's parameters, and of its body under the name ``body``."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in given:
        meaning = {"description": parameter["description"]} if "description" in parameter else {}
        properties[parameter["name"]] = {**parameter.get("schema", {}), **meaning}
        if parameter.get("required"):
            required.append(parameter["name"])
    body = _resolved(document, operation.get("requestBody", {}))
    if schema := body.get("content", {}).get("application/json", {}).get("schema"):
        properties[_BODY] = schema
        if body.get("required"):
            required.append(_BODY)
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        parameters["required"] = required
    if "components" in document:  # references of schemas point there
        parameters["components"] = document["components"]
    return parameters


def _resolved(document: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference within the document refers to. Raises ``InvalidRequest``."""
    if not isinstance(reference := value.get("$ref"), str):
        return value
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        raise InvalidRequest(f"tools.openapi: the document refers to {reference}, which is not in it.")
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
