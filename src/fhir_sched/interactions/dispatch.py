"""A Call -> the interaction it asks for -> its Answer. One table for the three resources. R4 3.1.0.

The same for an HTTP request and for an entry of a batch or transaction. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from fhir_sched.definition import METHODS, Resource
from fhir_sched.interactions import definitions, validation
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.conditional import under_lock
from fhir_sched.interactions.context import Answer, Condition, Context
from fhir_sched.interactions.history import history, vread
from fhir_sched.interactions.operations import invoke
from fhir_sched.interactions.patch import Change
from fhir_sched.interactions.permitted import create, delete, patch, update
from fhir_sched.interactions.read import read, unchanged
from fhir_sched.interactions.search import search
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.patch.fhirpath_patch import apply_fhirpath_patch
from fhir_sched.patch.json_patch import apply_json_patch
from fhir_sched.r4.structure import TYPES
from fhir_sched.resources import RESOURCES, SERVED, operations
from fhir_sched.search import several
from fhir_sched.search.several import COMPARTMENTS
from fhir_sched.search.values import form
from fhir_sched.security.decision import decide, needs
from fhir_sched.security.guard import refused
from fhir_sched.subset import part

_SHOWING = frozenset({"update", "conditional-update", "patch", "conditional-patch"})

_NO_VERSION = "0"  # versions count from 1

Action = Callable[[Context, Call, Resource], Awaitable[Answer]]
OnAll = Callable[[Context, Call], Awaitable[Answer]]


async def perform(context: Context, call: Call) -> Answer:
    """The answer of the interaction. Raises FhirError: 404 for an unknown path, 405 for a method it does not take."""
    path = call.path
    method = "GET" if call.method == "HEAD" else call.method
    invoked = operations.at(path) if path and path[-1].startswith("$") else None
    if invoked is not None:
        operation, fhir_id = invoked
        if method in operation.methods:
            return await invoke(context, call, operation, fhir_id)
        return _without_body(call, operation.methods)
    resource = SERVED.get(path[0]) if path else None
    if resource is None:
        on_all = _on_all(path)
        if method in on_all:
            return await on_all[method](context, call)
        return _without_body(call, on_all)
    offered = _OFFERED.get((resource.type, _shape(path)))
    if offered is None:
        raise no_route(path)
    if method not in offered:
        return _without_body(call, offered)
    code, action = offered[method]
    if context.caller.everything:
        return await action(context, call, resource)
    return await _within_scopes(context, call, resource, code, action)


def _without_body(call: Call, methods: Iterable[str]) -> Answer:
    """The answer to OPTIONS. Raises 405 for any other method: the path takes these."""
    methods = [*methods]
    allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
    if call.method == "OPTIONS":
        return Answer(204, b"", headers=(("Allow", allowed),))
    raise FhirError(
        Kind.METHOD, f"{call.method} is not possible here; this URL takes {allowed}", headers=(("Allow", allowed),)
    )


async def _within_scopes(context: Context, call: Call, resource: Resource, code: str, action: Action) -> Answer:
    """The answer, once it is sure that the scopes reach so far at all; the action finds its own limits later."""
    for letter in needs(code):
        if not decide(context.caller, letter, resource.type).allowed:
            raise refused(letter, resource.type)
    answer = await action(context, call, resource)
    # To write does not imply to read: whoever may not, is not shown what was there before.
    if code in _SHOWING and not decide(context.caller, "r", resource.type).allowed:
        return replace(answer, body=b"")
    return answer


def _shape(path: list[str]) -> str:
    """What stands below the type, with `{id}` and `{version}` for what the client chooses; "-" for what no path has."""
    match path[1:]:
        case []:
            return ""
        case ["_search" | "_history" | validation.OPERATION as word]:
            return word
        case [fhir_id] if not fhir_id.startswith("$"):
            return "{id}"
        case [_, "_history" | validation.OPERATION as word]:
            return "{id}/" + word
        case [_, "_history", _]:
            return "{id}/_history/{version}"
    return "-"


def _on_all(path: list[str]) -> Mapping[str, OnAll]:
    """The actions on resources of several types, or on what is defined here, by method."""
    if definitions.at(path):
        return {"POST": _definition_form} if path[1:] == [definitions.FORM] else {"GET": _definition}
    match path:
        case []:
            return {"GET": _system_search, "POST": _nested}
        case ["_search"]:
            return {"POST": _system_search}
        case ["_history"]:
            return {"GET": _history_of_all}
        case [kind, _, _] if kind in COMPARTMENTS:
            return {"GET": _compartment}
        case [kind, _, _, "_search"] if kind in COMPARTMENTS:
            return {"POST": _compartment}
    raise no_route(path)


def _required(call: Call) -> Condition | None:
    """What a change demands of the present version: If-Match, or by `If-None-Match: *` that there is none."""
    if call.none_match is not None and not call.none_match.versions:
        return Condition((_NO_VERSION,), absent=True)
    return call.match


async def _read(context: Context, call: Call, resource: Resource) -> Answer:
    return _asked_for(await read(context, resource, call.path[1]), call)


def _asked_for(answer: Answer, call: Call) -> Answer:
    """What the client has not yet (R4 3.1.0.1.3), and of that the part which it asks for (R4 3.1.0.1.5)."""
    if call.pairs:
        answer = replace(answer, body=part(call.pairs).of(answer.body))
    if call.none_match is not None or call.modified_since:
        return unchanged(answer, call)
    return answer


async def _update(context: Context, call: Call, resource: Resource) -> Answer:
    return await update(context, resource, call.path[1], call.body(), _required(call))


async def _patch(context: Context, call: Call, resource: Resource) -> Answer:
    return await patch(context, resource, call.path[1], _change(call), _required(call))


async def _delete(context: Context, call: Call, resource: Resource) -> Answer:
    return await delete(context, resource, call.path[1], _required(call))


async def _vread(context: Context, call: Call, resource: Resource) -> Answer:
    return _asked_for(await vread(context, resource, call.path[1], call.path[3]), call)


async def _history(context: Context, call: Call, resource: Resource) -> Answer:
    """Of one resource, or of a type."""
    fhir_id = call.path[1] if len(call.path) > 2 else None
    return await history(context, [resource], call.pairs, fhir_id, strict=call.strict)


async def _history_of_all(context: Context, call: Call) -> Answer:
    return await history(context, list(RESOURCES.values()), call.pairs, strict=call.strict)


async def _definition(context: Context, call: Call) -> Answer:
    return Answer(200, definitions.shown(context.base, call.path, call.pairs, strict=call.strict))


async def _definition_form(context: Context, call: Call) -> Answer:
    return await _definition(context, replace(call, path=call.path[:1]))


async def _nested(context: Context, call: Call) -> Answer:
    raise FhirError(Kind.INVALID, "a batch or transaction can't be an entry of another one")


async def _validate(context: Context, call: Call, resource: Resource) -> Answer:
    return await validation.validate(context, resource, validation.asked(call.body(), call.pairs), None)


async def _validate_instance(context: Context, call: Call, resource: Resource) -> Answer:
    """As one that is to replace what is there; for a delete there need not be a body."""
    body = {} if ("mode", "delete") in call.pairs else call.body()
    return await validation.validate(context, resource, validation.asked(body, call.pairs), call.path[1])


async def _validate_stored(context: Context, call: Call, resource: Resource) -> Answer:
    return await validation.validate(context, resource, validation.asked({}, call.pairs), call.path[1])


async def _system_search(context: Context, call: Call) -> Answer:
    return await search(context, several.system(context.parser, call.pairs, strict=call.strict))


async def _compartment(context: Context, call: Call) -> Answer:
    kind, fhir_id, name = call.path[:3]
    return await search(
        context, several.compartment(context.parser, kind, fhir_id, name, call.pairs, strict=call.strict)
    )


async def _search(context: Context, call: Call, resource: Resource) -> Answer:
    query = context.parser.query(resource, call.pairs, strict=call.strict)
    return await search(context, query)


async def _create(context: Context, call: Call, resource: Resource) -> Answer:
    document = call.body()
    if call.none_exist is None:
        return await create(context, resource, document, call.row_id)

    async def step(inside: Context, found: str | None) -> Answer:
        if found is None:
            return await create(inside, resource, document, call.row_id)
        answer = await read(inside, resource, found)
        version = (answer.version or b"").decode()
        return replace(answer, location=f"{context.base}/{resource.type}/{found}/_history/{version}")

    return await under_lock(context, resource, criteria(call.none_exist), step)


def criteria(text: str) -> list[tuple[str, str]]:
    """The pairs of an If-None-Exist header, with or without its question mark."""
    return form(text.partition("?")[2] if "?" in text else text)


async def _conditional_update(context: Context, call: Call, resource: Resource) -> Answer:
    document = call.body()
    given = document.get("id")
    required = _required(call)

    async def step(inside: Context, found: str | None) -> Answer:
        if found is None and required is not None and not required.absent:
            raise FhirError(Kind.PRECONDITION, f"If-Match does not fit: no {resource.type} matches the criteria")
        if found is None and given is None:
            return await create(inside, resource, document)
        if found is None:
            return await update(inside, resource, str(given), document, required)
        if given not in (None, found):
            raise FhirError(Kind.INVALID, f"the match is {found!r}, the body says {given!r}", f"{resource.type}.id")
        return await update(inside, resource, found, {**document, "id": found}, required)

    return await under_lock(context, resource, call.pairs, step)


def _change(call: Call) -> Change:
    """What a PATCH asks for: the operations of a JSON Patch, else those of a FHIRPath Patch."""
    if call.json_patch is not None:
        operations = call.json_patch()
        return lambda document: apply_json_patch(document, operations)
    parameters = call.body()
    return lambda document: apply_fhirpath_patch(document, parameters)


async def _conditional_patch(context: Context, call: Call, resource: Resource) -> Answer:
    change = _change(call)

    async def step(inside: Context, found: str | None) -> Answer:
        if found is None:
            raise FhirError(Kind.NOT_FOUND, f"no {resource.type} matches; there is nothing to patch")
        return await patch(inside, resource, found, change, _required(call))

    return await under_lock(context, resource, call.pairs, step)


async def _conditional_delete(context: Context, call: Call, resource: Resource) -> Answer:
    async def step(inside: Context, found: str | None) -> Answer:
        return Answer(204, b"") if found is None else await delete(inside, resource, found, _required(call))

    return await under_lock(context, resource, call.pairs, step)


_ACTIONS: Final[Mapping[str, Mapping[str, Action]]] = {
    "": {
        "search-type": _search,
        "create": _create,
        "conditional-update": _conditional_update,
        "conditional-patch": _conditional_patch,
        "conditional-delete": _conditional_delete,
    },
    "_search": {"search-form": _search},
    "_history": {"history-type": _history},
    validation.OPERATION: {"validate": _validate},
    "{id}": {"read": _read, "update": _update, "patch": _patch, "delete": _delete},
    "{id}/_history": {"history-instance": _history},
    "{id}/_history/{version}": {"vread": _vread},
    f"{{id}}/{validation.OPERATION}": {"validate-instance": _validate_instance, "validate-stored": _validate_stored},
}
"""What may be done below a type, by the shape of the path and the name of the interaction."""

_OFFERED: Final = {
    (resource.type, shape): {
        METHODS[code]: (code, action) for code, action in actions.items() if code in resource.interactions
    }
    for resource in SERVED.values()
    for shape, actions in _ACTIONS.items()
    if not set(resource.interactions).isdisjoint(actions)
}
"""The interactions that a resource declares, which is what metadata tells too: name and action by path and method."""


def no_route(path: list[str]) -> FhirError:
    """404: nothing is served at that path."""
    served = ", ".join(SERVED)
    if path and path[0] in TYPES and path[0] not in SERVED:
        return FhirError(Kind.NO_SUCH_ROUTE, f"{path[0]} is not served here; served are {served}")
    return FhirError(Kind.NO_SUCH_ROUTE, f"there is nothing at /{'/'.join(path)[:200]}; served are metadata, {served}")
