"""$validate: R4's operation on Resource. Says what a create, update or delete would be told, and changes nothing.

With a mode, the interaction is really tried and rolled back, so that taken slots and times are found as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from fhir_sched.db.work import Work
from fhir_sched.definition import Resource
from fhir_sched.document import dumps, parse
from fhir_sched.interactions import write
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.permitted import create, delete, update
from fhir_sched.interactions.read import read
from fhir_sched.outcome import FhirError, Issue, Kind, operation_outcome
from fhir_sched.validate import resource_issues

OPERATION = "$validate"
_INPUTS = ("resource", "mode", "profile")
_MODES = ("create", "update", "delete", "profile")


class _TriedError(Exception):
    """Ends the transaction of something that worked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be validated, as what, against which profile."""

    document: dict[str, Any] | None
    mode: str
    profile: str


def asked(body: dict[str, Any], pairs: list[tuple[str, str]]) -> Asked:
    """The input: a Parameters resource, or the resource itself with mode and profile in the URL. Raises 400."""
    given = {name: text for name, text in pairs if name in ("mode", "profile")}
    document: dict[str, Any] | None = body or None
    if body.get("resourceType") == "Parameters":
        found = _parameters(body)
        document = found.pop("resource", {}).get("resource")
        for name, parameter in found.items():
            given[name] = str(next((item for member, item in parameter.items() if member.startswith("value")), ""))
    mode = given.get("mode", "")
    if mode and mode not in _MODES:
        raise FhirError(Kind.CODE_INVALID, f"mode is one of {', '.join(_MODES)}, not {mode!r}", "Parameters.parameter")
    return Asked(document, mode, given.get("profile", ""))


def _parameters(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parameters by name. Raises 400 for Parameters that R4 does not have, and for one that is given twice."""
    issues = resource_issues(body, "Parameters", nested=False)
    if issues:
        raise FhirError.of(issues)
    found: dict[str, dict[str, Any]] = {}
    for index, parameter in enumerate(body.get("parameter", ())):
        name = parameter["name"]
        if name in found and name in _INPUTS:
            raise FhirError(Kind.INVALID, f"{name!r} may be given once", f"Parameters.parameter[{index}]")
        found[name] = parameter
    return {name: parameter for name, parameter in found.items() if name in _INPUTS}


async def validate(context: Context, resource: Resource, wanted: Asked, fhir_id: str | None = None) -> Answer:
    """200 with an OperationOutcome: every issue, or that there is none. Raises 400, 404 for a wrong request."""
    if fhir_id is not None and wanted.document is None and wanted.mode != "delete":
        stored = await read(context, resource, fhir_id)
        return _outcome(resource_issues(parse(stored.body), resource.type))
    if wanted.document is None and wanted.mode != "delete":
        raise FhirError(
            Kind.REQUIRED, "$validate needs a resource: the body, or the parameter 'resource'", "Parameters"
        )
    issues = list(_profile_issues(resource, wanted.profile))
    try:
        await _try(context, resource, wanted, fhir_id)
    except FhirError as error:
        issues = [*error.issues, *issues]
    return _outcome(issues)


async def _try(context: Context, resource: Resource, wanted: Asked, fhir_id: str | None) -> None:
    document = wanted.document or {}
    match wanted.mode:
        case "create":
            await _rolled_back(context, lambda inside: create(inside, resource, document))
        case "update":
            named = fhir_id or str(document.get("id", ""))
            await _rolled_back(context, lambda inside: update(inside, resource, named, document, None))
        case "delete":
            if fhir_id is None:
                raise FhirError(Kind.INVALID, f"mode delete is asked of one resource: {resource.type}/[id]/$validate")
            await read(context, resource, fhir_id)
            await _rolled_back(context, lambda inside: delete(inside, resource, fhir_id, None))
        case _:
            write.checked(resource, document)
            write.columns_of(context, resource, resource.source_of(document), document)


async def _rolled_back(context: Context, step: Callable[[Context], Awaitable[Answer]]) -> None:
    async def attempt(work: Work) -> NoReturn:
        await step(replace(context, work=work))
        raise _TriedError

    try:
        await context.work.atomically(attempt)
    except _TriedError:
        return


def _profile_issues(resource: Resource, profile: str) -> list[Issue]:
    if profile in ("", f"http://hl7.org/fhir/StructureDefinition/{resource.type}"):
        return []
    why = f"the profile {profile} is not known here; the resource was validated against R4's {resource.type}"
    return [Issue(Kind.NOT_SUPPORTED, why, severity="warning")]


def _outcome(issues: list[Issue]) -> Answer:
    found = issues or [Issue(Kind.INFORMATIONAL, "no issues were found", severity="information")]
    return Answer(200, dumps(operation_outcome(found)))
