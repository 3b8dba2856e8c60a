"""OpenAPI 3.1 documents, made from the manifest of an app."""

from __future__ import annotations

from typing import Any

PROBLEM_SCHEMA = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "For programs: what kind of problem this is."},
        "detail": {"type": "string", "description": "What happened."},
        "hint": {"type": "string", "description": "What to do about it."},
        "call_id": {"type": "string", "description": "The id of the call in the log."},
    },
}
PROBLEMS = {
    "400": "wrong arguments",
    "401": "no key, or an unknown one",
    "403": "not allowed",
    "404": "not found",
    "409": "a conflict, such as a broken constraint; or the workflow was cancelled",
    "413": "too large",
    "415": "not JSON",
    "422": "refused by the application, or an idempotency key used for another call",
    "500": "the function failed; nothing was committed, but what an action did outside of the database",
    "503": "not run; send it again",
    "504": "stopped at its timeout; nothing was committed, but what an action did outside of the database",
}
REFERENCE = "#/components/schemas/"
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A call that is repeated with the same key has the outcome of the first, and no effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}

PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`respond-async`: answer 202 as soon as the workflow has begun; `wait=N`: after N seconds.",
    "schema": {"type": "string", "examples": ["respond-async", "wait=10"]},
}
BEGUN = {
    "description": "The workflow has begun, and goes on.",
    "headers": {
        "Apiary-Call-Id": {"schema": {"type": "string", "format": "uuid"}},
        "Location": {"description": "Where the workflow is found.", "schema": {"type": "string"}},
        "Preference-Applied": {"schema": {"type": "string", "enum": ["respond-async", "wait"]}},
    },
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": {"type": "string", "format": "uuid"}},
            }
        }
    },
}


def document(manifest: dict[str, Any], server: str) -> dict[str, Any]:
    """The OpenAPI document of an app that is served at the URL `server`."""
    schemas: dict[str, Any] = {"Problem": PROBLEM_SCHEMA}
    paths: dict[str, Any] = {}
    for name, function in manifest["functions"].items():
        arguments = _hoist(function["input"], schemas, f"{name}_arguments")
        result = _hoist(function["output"], schemas, f"{name}_result")
        path = {"post": _post(name, function, arguments, result)}
        if function["kind"] == "query" and _fits_a_query_string(arguments):
            path["get"] = _get(name, function, arguments, result)
        paths[f"/apps/{manifest['app']}/{name}"] = path
    return {
        "openapi": "3.1.0",
        "info": {
            "title": manifest["app"],
            "version": manifest["version"],
            "description": manifest["description"],
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _post(name: str, function: dict[str, Any], arguments: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(name, function, result)
    operation["parameters"] = [IDEMPOTENCY_KEY]
    if function["kind"] == "workflow":
        operation["parameters"].append(PREFER)
        operation["responses"]["202"] = BEGUN
    operation["requestBody"] = {
        "required": bool(arguments.get("required")),
        "content": {"application/json": {"schema": arguments}},
    }
    return operation


def _get(name: str, function: dict[str, Any], arguments: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(f"{name}_get", function, result)
    operation["parameters"] = [
        {"name": argument, "in": "query", "required": argument in arguments.get("required", []), "schema": schema}
        for argument, schema in arguments.get("properties", {}).items()
    ]
    return operation


def _operation(identifier: str, function: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    lines = function["description"].strip().splitlines()
    responses: dict[str, Any] = {
        "200": {
            "description": "The result.",
            "headers": {"Apiary-Call-Id": {"schema": {"type": "string", "format": "uuid"}}},
            "content": {"application/json": {"schema": result}},
        }
    }
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, description in PROBLEMS.items():
        responses[status] = {"description": description, "content": problem}
    return {
        "operationId": identifier,
        "summary": lines[0] if lines else identifier,
        "description": function["description"],
        "tags": [function["kind"]],
        "responses": responses,
    }


def _hoist(schema: dict[str, Any], schemas: dict[str, Any], owner: str) -> dict[str, Any]:
    """Move the definitions of a schema to where all operations find them.

    Where another definition has one of their names already, all bear that of their owner in front.
    """
    definitions: dict[str, Any] = schema.get("$defs", {})
    if any(schemas.get(name, definition) != definition for name, definition in definitions.items()):
        names = {REFERENCE + name: f"{REFERENCE}{owner}.{name}" for name in definitions}
        schema = _renamed(schema, names)
        definitions = {f"{owner}.{name}": definition for name, definition in schema["$defs"].items()}
    schemas.update(definitions)
    return {name: value for name, value in schema.items() if name != "$defs"}


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """A schema whose references have other names."""
    if isinstance(schema, dict):
        return {
            name: names.get(value, value) if name == "$ref" and isinstance(value, str) else _renamed(value, names)
            for name, value in schema.items()
        }
    return [_renamed(item, names) for item in schema] if isinstance(schema, list) else schema


def _fits_a_query_string(arguments: dict[str, Any]) -> bool:
    simple = {"string", "integer", "number", "boolean"}

    def fits(schema: dict[str, Any]) -> bool:
        if schema.get("type") == "array":
            return schema.get("items", {}).get("type") in simple
        return schema.get("type") in simple

    return all(fits(schema) for schema in arguments.get("properties", {}).values())
