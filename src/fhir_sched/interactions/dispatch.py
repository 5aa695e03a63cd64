"""A Call -> the interaction it asks for -> its Answer. One table for the three resources. R4 3.1.0.

The same for an HTTP request and for an entry of a batch or transaction. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from fhir_sched.definition import METHODS, SYSTEM_METHODS, Resource
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
from fhir_sched.search.parse import Parser
from fhir_sched.search.several import COMPARTMENTS
from fhir_sched.search.values import form
from fhir_sched.security.decision import decide, needs
from fhir_sched.security.guard import refused
from fhir_sched.subset import part

_SHOWING = frozenset({"update", "conditional-update", "patch", "conditional-patch"})

_NO_VERSION = "0"  # versions count from 1

Actions = dict[str, Callable[[], Awaitable[Answer]]]


async def perform(context: Context, call: Call) -> Answer:
    """The answer of the interaction. Raises FhirError: 404 for an unknown path, 405 for a method it does not take."""
    actions = _offered(context, call)
    action = actions.get("GET" if call.method == "HEAD" else call.method)
    if action is not None:
        return await action()
    allowed = ", ".join([*actions, *(["HEAD"] if "GET" in actions else []), "OPTIONS"])
    if call.method == "OPTIONS":
        return Answer(204, b"", headers=(("Allow", allowed),))
    raise FhirError(
        Kind.METHOD, f"{call.method} is not possible here; this URL takes {allowed}", headers=(("Allow", allowed),)
    )


def _offered(context: Context, call: Call) -> Actions:
    """The actions by method: those of the path that the resource declares, which is what metadata tells too."""
    if definitions.at(call.path):
        if call.path[1:] == [definitions.FORM]:
            return {"POST": lambda: _definition(context, replace(call, path=call.path[:1]))}
        return {"GET": lambda: _definition(context, call)}
    invoked = operations.at(call.path)
    if invoked is not None:
        return {method: lambda: invoke(context, call, *invoked) for method in invoked[0].methods}
    resource = SERVED.get(call.path[0]) if call.path else None
    methods, offered = (METHODS, resource.interactions) if resource else (SYSTEM_METHODS, SYSTEM_METHODS)
    actions = {
        methods[code]: _allowed(context, code, resource, action)
        for code, action in _actions(context, call).items()
        if code in offered
    }
    if not actions:
        raise no_route(call.path)
    return actions


def _allowed(
    context: Context, code: str, resource: Resource | None, action: Callable[[], Awaitable[Answer]]
) -> Callable[[], Awaitable[Answer]]:
    """The action, which asks first whether the caller's scopes reach so far at all; it finds its own limits later."""
    if context.caller.everything:
        return action

    async def asked() -> Answer:
        for letter in needs(code) if resource is not None else "":
            if resource is not None and not decide(context.caller, letter, resource.type).allowed:
                raise refused(letter, resource.type)
        answer = await action()
        # To write does not imply to read: whoever may not, is not shown what was there before.
        if code in _SHOWING and resource is not None and not decide(context.caller, "r", resource.type).allowed:
            return replace(answer, body=b"")
        return answer

    return asked


def _actions(context: Context, call: Call) -> Actions:
    """The actions that a path may take, by the name of the interaction."""
    if call.path and call.path[0] in SERVED:
        return _of_hosted(context, call, SERVED[call.path[0]], call.path[1:])
    match call.path:
        case [kind, fhir_id, name] if kind in COMPARTMENTS:
            return {"search-compartment": lambda: _compartment(context, call, kind, fhir_id, name)}
        case [kind, fhir_id, name, "_search"] if kind in COMPARTMENTS:
            return {"search-compartment-form": lambda: _compartment(context, call, kind, fhir_id, name)}
        case []:
            return {"search-system": lambda: _system_search(context, call), "transaction": _nested}
        case ["_search"]:
            return {"search-system-form": lambda: _system_search(context, call)}
        case ["_history"]:
            return {
                "history-system": lambda: history(context, list(RESOURCES.values()), call.pairs, strict=call.strict)
            }
    raise no_route(call.path)


def _of_hosted(context: Context, call: Call, resource: Resource, rest: list[str]) -> Actions:
    match rest:
        case []:
            return _of_type(context, call, resource)
        case ["_search"]:
            return {"search-form": lambda: _search(context, call, resource)}
        case ["_history"]:
            return {"history-type": lambda: history(context, [resource], call.pairs, strict=call.strict)}
        case [validation.OPERATION]:
            return {"validate": lambda: _validate(context, call, resource, call.body())}
        case [fhir_id] if not fhir_id.startswith("$"):
            return _of_instance(context, call, resource, fhir_id)
        case [fhir_id, "_history"]:
            return {"history-instance": lambda: history(context, [resource], call.pairs, fhir_id, strict=call.strict)}
        case [fhir_id, "_history", version]:
            return {"vread": lambda: _vread(context, call, resource, fhir_id, version)}
        case [fhir_id, validation.OPERATION]:
            return {
                "validate-instance": lambda: _validate(context, call, resource, _validated(call), fhir_id),
                "validate-stored": lambda: _validate(context, call, resource, {}, fhir_id),
            }
    raise no_route(call.path)


def _of_type(context: Context, call: Call, resource: Resource) -> Actions:
    return {
        "search-type": lambda: _search(context, call, resource),
        "create": lambda: _create(context, call, resource),
        "conditional-update": lambda: _conditional_update(context, call, resource),
        "conditional-patch": lambda: _conditional_patch(context, call, resource),
        "conditional-delete": lambda: _conditional_delete(context, call, resource),
    }


def _of_instance(context: Context, call: Call, resource: Resource, fhir_id: str) -> Actions:
    return {
        "read": lambda: _read(context, call, resource, fhir_id),
        "update": lambda: update(context, resource, fhir_id, call.body(), _required(call)),
        "patch": lambda: patch(context, resource, fhir_id, _change(call), _required(call)),
        "delete": lambda: delete(context, resource, fhir_id, _required(call)),
    }


def _required(call: Call) -> Condition | None:
    """What a change demands of the present version: If-Match, or by `If-None-Match: *` that there is none."""
    if call.none_match is not None and not call.none_match.versions:
        return Condition((_NO_VERSION,), absent=True)
    return call.match


async def _read(context: Context, call: Call, resource: Resource, fhir_id: str) -> Answer:
    return _asked_for(await read(context, resource, fhir_id), call)


async def _vread(context: Context, call: Call, resource: Resource, fhir_id: str, version: str) -> Answer:
    return _asked_for(await vread(context, resource, fhir_id, version), call)


def _asked_for(answer: Answer, call: Call) -> Answer:
    """What the client has not yet (R4 3.1.0.1.3), and of that the part which it asks for (R4 3.1.0.1.5)."""
    if call.pairs:
        answer = replace(answer, body=part(call.pairs).of(answer.body))
    if call.none_match is not None or call.modified_since:
        return unchanged(answer, call)
    return answer


async def _definition(context: Context, call: Call) -> Answer:
    return Answer(200, definitions.shown(context.base, call.path, call.pairs, strict=call.strict))


async def _nested() -> Answer:
    raise FhirError(Kind.INVALID, "a batch or transaction can't be an entry of another one")


async def _validate(
    context: Context, call: Call, resource: Resource, body: dict[str, Any], fhir_id: str | None = None
) -> Answer:
    return await validation.validate(context, resource, validation.asked(body, call.pairs), fhir_id)


def _validated(call: Call) -> dict[str, Any]:
    """The body of a $validate; for a delete there need not be one."""
    return {} if ("mode", "delete") in call.pairs else call.body()


async def _system_search(context: Context, call: Call) -> Answer:
    parser = Parser(RESOURCES, context.base, context.tenant)
    return await search(context, several.system(parser, call.pairs, strict=call.strict))


async def _compartment(context: Context, call: Call, kind: str, fhir_id: str, name: str) -> Answer:
    parser = Parser(RESOURCES, context.base, context.tenant)
    return await search(context, several.compartment(parser, kind, fhir_id, name, call.pairs, strict=call.strict))


async def _search(context: Context, call: Call, resource: Resource) -> Answer:
    query = Parser(RESOURCES, context.base, context.tenant).query(resource, call.pairs, strict=call.strict)
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


def no_route(path: list[str]) -> FhirError:
    """404: nothing is served at that path."""
    served = ", ".join(SERVED)
    if path and path[0] in TYPES and path[0] not in SERVED:
        return FhirError(Kind.NO_SUCH_ROUTE, f"{path[0]} is not served here; served are {served}")
    return FhirError(Kind.NO_SUCH_ROUTE, f"there is nothing at /{'/'.join(path)[:200]}; served are metadata, {served}")
