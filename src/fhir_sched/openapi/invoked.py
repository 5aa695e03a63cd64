"""The operations of FHIR ($find …) in the OpenAPI document, from their declarations. R4 3.2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fhir_sched.openapi import answers, schemas
from fhir_sched.openapi.operations import BASE, Placed, operation, shared
from fhir_sched.operation import Level, Operation, Parameter
from fhir_sched.r4.structure import PRIMITIVE_TYPES, TYPES
from fhir_sched.resources.operations import OPERATIONS

_PATHS: Final[dict[Level, str]] = {"system": "", "type": "/{type}", "instance": "/{type}/{id}"}


def of_operations() -> Iterator[Placed]:
    """Every operation at each of its levels, by each of its methods."""
    for each in OPERATIONS:
        for level in each.levels:
            path = f"{BASE}{_PATHS[level].replace('{type}', each.type)}/{each.word}"
            for method in each.methods:
                yield path, method, _invoked(each, level, method)


def _invoked(each: Operation, level: Level, method: str) -> dict[str, Any]:
    name = f"{each.id}-{level}" if len(each.levels) > 1 else each.id
    primitive = [_query(parameter, method) for parameter in each.inputs if parameter.type in PRIMITIVE_TYPES]
    given = [*primitive, *([shared("idempotency-key")] if method == "POST" else [])]
    found = {"200": _answer(each), **answers.refusals(answers.WRITING if method == "POST" else answers.READING)}
    made = operation(name if method == "POST" else f"{name}-get", each.title, each.type or "System", found, given)
    made["description"] = each.doc
    if method != "POST":
        return made
    body = answers.body({"$ref": "#/components/schemas/Parameters"}, {})
    return {**made, "requestBody": {**body, "required": any(parameter.min for parameter in each.inputs)}}


def _query(parameter: Parameter, method: str) -> dict[str, Any]:
    schema: dict[str, Any] = schemas.primitive(parameter.type)
    if parameter.max == "*":
        schema = {"type": "array", "items": schema}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.doc,
        "required": method == "GET" and parameter.min > 0,
        "schema": schema,
    }


def _answer(each: Operation) -> dict[str, Any]:
    """The resource that comes back, which is the one output named `return`, else a Parameters resource."""
    only = each.outputs[0] if len(each.outputs) == 1 else None
    known = only is not None and only.name == "return" and only.type in ("Bundle", "OperationOutcome")
    if only is not None and known:
        return answers.resource(only.doc, only.type, versioned=False)
    if only is not None and only.name == "return" and only.type not in TYPES:
        return answers.media(only.doc, "application/json", {"type": "object"})
    return answers.resource(each.title, "Parameters", versioned=False)
