"""The operations on the resources that are served, from the interactions and search parameters they declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from fhir_sched.definition import METHODS, Resource
from fhir_sched.openapi import answers, examples, parameters, schemas
from fhir_sched.openapi.operations import BASE, Operation, Placed, operation, shared
from fhir_sched.patch import JSON_PATCH
from fhir_sched.resources import SERVED

_PATHS: Final = {
    "read": "/{id}",
    "update": "/{id}",
    "delete": "/{id}",
    "patch": "/{id}",
    "vread": "/{id}/_history/{version}",
    "history-instance": "/{id}/_history",
    "history-type": "/_history",
    "create": "",
    "search-type": "",
    "search-form": "/_search",
    "conditional-update": "",
    "conditional-patch": "",
    "conditional-delete": "",
    "validate": "/$validate",
    "validate-instance": "/{id}/$validate",
    "validate-stored": "/{id}/$validate",
}
"""Where below the type an interaction is; those without a path of their own are headers of another one."""


def of_resources() -> Iterator[Placed]:
    """Every interaction that has a path of its own."""
    for resource in SERVED.values():
        for code in resource.interactions:
            if code in _PATHS:
                path = f"{BASE}/{resource.type}{_PATHS[code]}"
                yield path, METHODS[code], _OPERATIONS[code](resource)


def _read(resource: Resource) -> Operation:
    given = parameters.part()
    given += [shared("if-none-match")] if "conditional-read" in resource.interactions else []
    found = answers.resource("The current version", f"Served{resource.type}")
    return _of(resource, "read", "Read it", {"200": found}, (*answers.READING, 304, 410), given)


def _vread(resource: Resource) -> Operation:
    found = answers.resource("That version", f"Served{resource.type}")
    given = [*parameters.part(), shared("if-none-match")]
    return _of(resource, "vread", "Read one of its versions", {"200": found}, (*answers.READING, 304, 410), given)


def _create(resource: Resource) -> Operation:
    given = [shared("return"), shared("idempotency-key")]
    given += [shared("if-none-exist")] if "conditional-create" in resource.interactions else []
    made = answers.resource("Created", f"Served{resource.type}", located=True)
    made["links"] = {
        code: {"operationId": f"{code}{resource.type}", "parameters": _same("tenant", id="$response.body#/id")}
        for code in ("read", "delete")
    }
    made["links"]["update"] = {
        "operationId": f"update{resource.type}",
        "parameters": _same("tenant", id="$response.body#/id"),
        "requestBody": "$response.body",
    }
    there = answers.resource("It was there: one resource matches If-None-Exist", f"Served{resource.type}", located=True)
    made = _of(resource, "create", "Create one", {"201": made, "200": there}, (*answers.WRITING, 304), given)
    return {**made, "requestBody": _body(resource)}


def _same(*names: str, **others: str) -> dict[str, str]:
    return {**{name: f"$request.path.{name}" for name in names}, **others}


def _update(resource: Resource) -> Operation:
    made = _of(
        resource,
        "update",
        "Replace it",
        _written(resource),
        answers.WRITING,
        [shared("if-match"), shared("return")],
    )
    return {**made, "requestBody": _body(resource)}


def _written(resource: Resource) -> dict[str, Any]:
    served = f"Served{resource.type}"
    return {
        "200": answers.resource("The new version", served, located=True),
        "201": answers.resource("It was deleted before, or nothing matched, and is there now", served, located=True),
    }


def _body(resource: Resource) -> dict[str, Any]:
    return answers.body({"$ref": f"#/components/schemas/{resource.type}"}, examples.of(resource.type))


def _patch(resource: Resource) -> Operation:
    given = [shared("if-match"), shared("return"), shared("idempotency-key")]
    return _patched(_of(resource, "patch", "Change parts of it", _changed(resource), (*answers.WRITING, 410), given))


def _conditional_patch(resource: Resource) -> Operation:
    given = [*parameters.criteria(resource), shared("if-match"), shared("return"), shared("idempotency-key")]
    summary = "Change parts of the one that matches"
    return _patched(_of(resource, "conditional-patch", summary, _changed(resource), (*answers.WRITING, 410), given))


def _changed(resource: Resource) -> dict[str, Any]:
    return {"200": answers.resource("The new version", f"Served{resource.type}", located=True)}


def _patched(made: Operation) -> Operation:
    """With the body of a PATCH: a JSON Patch, or the Parameters of a FHIRPath Patch."""
    operations = answers.body(schemas.JSON_PATCH, examples.patch(), JSON_PATCH)
    parameters = answers.body({"$ref": "#/components/schemas/Parameters"}, {})
    return {**made, "requestBody": {"required": True, "content": {**operations["content"], **parameters["content"]}}}


def _delete(resource: Resource) -> Operation:
    gone = {"204": {"description": "It is gone, or never was"}}
    return _of(resource, "delete", "Delete it", gone, (*answers.WRITING,), [shared("if-match")])


def _conditional_update(resource: Resource) -> Operation:
    summary = "Replace the one that matches, or create one"
    given = [*parameters.criteria(resource), shared("if-match"), shared("return")]
    made = _of(resource, "conditional-update", summary, _written(resource), answers.WRITING, given)
    return {**made, "requestBody": _body(resource)}


def _conditional_delete(resource: Resource) -> Operation:
    gone = {"204": {"description": "The one that matched is gone, or none matched"}}
    given = [*parameters.criteria(resource), shared("if-match")]
    return _of(resource, "conditional-delete", "Delete the one that matches", gone, answers.WRITING, given)


def _validate(code: str, summary: str) -> Callable[[Resource], Operation]:
    def made(resource: Resource) -> Operation:
        found = answers.body({"$ref": "#/components/schemas/OperationOutcome"}, {})["content"]
        said = {"200": {"description": "What is wrong with it, or that nothing is", "content": found}}
        done = _of(resource, code, summary, said, (*answers.WRITING, 410), parameters.validation())
        # Whatever is sent is looked at, so that no schema can be asked of it.
        body = answers.body({"type": "object"}, examples.of(resource.type))
        return done if code == "validate-stored" else {**done, "requestBody": body}

    return made


def _search(resource: Resource) -> Operation:
    given = [*parameters.search(resource), shared("handling")]
    return _of(resource, "search-type", "Search", {"200": answers.bundle("A page of matches")}, answers.READING, given)


def _search_form(resource: Resource) -> Operation:
    made = _of(
        resource,
        "search-form",
        "Search by a form",
        {"200": answers.bundle("A page of matches")},
        (*answers.READING, 413, 415),
    )
    return {**made, "requestBody": answers.form(parameters.search(resource))}


def _history(code: str, summary: str) -> Callable[[Resource], Operation]:
    def made(resource: Resource) -> Operation:
        found = {"200": answers.bundle("A page of versions, newest first")}
        return _of(resource, code, summary, found, answers.READING, [*parameters.history(), shared("handling")])

    return made


def _of(
    resource: Resource,
    code: str,
    summary: str,
    found: dict[str, Any],
    refused: tuple[int, ...],
    given: list[dict[str, Any]] | None = None,
) -> Operation:
    return operation(f"{code}{resource.type}", summary, resource.type, {**found, **answers.refusals(refused)}, given)


_OPERATIONS: Final[dict[str, Callable[[Resource], Operation]]] = {
    "read": _read,
    "vread": _vread,
    "create": _create,
    "update": _update,
    "patch": _patch,
    "delete": _delete,
    "history-instance": _history("history-instance", "Its versions"),
    "history-type": _history("history-type", "The versions of all"),
    "search-type": _search,
    "search-form": _search_form,
    "conditional-update": _conditional_update,
    "conditional-patch": _conditional_patch,
    "conditional-delete": _conditional_delete,
    "validate": _validate("validate", "Say what a create, update or delete would be told"),
    "validate-instance": _validate("validate-instance", "Say what an update would be told"),
    "validate-stored": _validate("validate-stored", "Say what is wrong with the stored one"),
}
