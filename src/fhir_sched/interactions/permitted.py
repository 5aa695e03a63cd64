"""create, update, patch and delete within the caller's limits; the only ones that anything else calls.

A caller may change only what it may see so, and leave only what it may leave: a patient's token books for that patient
alone, and the query of a granular scope must match before and after. What the caller may not change is answered like
what is not there. SMART App Launch 2.2. Knows no scope syntax.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from fhir_sched import statements
from fhir_sched.db.work import Work
from fhir_sched.definition import Resource
from fhir_sched.document import parse
from fhir_sched.element import EXTENSION_BASE
from fhir_sched.interactions import create as creation
from fhir_sched.interactions import delete as deletion
from fhir_sched.interactions import patch as patching
from fhir_sched.interactions import update as updating
from fhir_sched.interactions import write
from fhir_sched.interactions.context import Answer, Condition, Context, located, not_found
from fhir_sched.interactions.patch import Change
from fhir_sched.interactions.read import visible
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.rendering import to_resource
from fhir_sched.search.query import Condition as Limit
from fhir_sched.security import view
from fhir_sched.security.decision import decide
from fhir_sched.security.guard import refused

Limits = tuple[Limit, ...]
Step = Callable[[Context], Awaitable[Answer]]
_DOUBLE_BOOKING = EXTENSION_BASE + "allow-double-booking"


async def create(
    context: Context,
    resource: Resource,
    document: dict[str, Any],
    row_id: str | None = None,
    hold_seconds: int | None = None,
) -> Answer:
    """See `interactions.create`. Raises 403 beyond the scopes."""
    limits = context.limits(resource, "c")
    if not limits:
        return await creation.create(context, resource, document, row_id, hold_seconds)
    _refuse_others(context, resource, document, "c")
    return await _afterwards(
        context, resource, limits, "c", lambda inside: creation.create(inside, resource, document, row_id, hold_seconds)
    )


async def update(
    context: Context, resource: Resource, fhir_id: str, document: dict[str, Any], condition: Condition | None
) -> Answer:
    """See `interactions.update`. Raises 403 beyond the scopes; participants that the caller can't see stay."""
    limits = context.limits(resource, "u")
    if not limits:
        return await updating.update(context, resource, fhir_id, document, condition)
    _refuse_others(context, resource, document, "u")

    async def step(inside: Context) -> Answer:
        current = await _current(inside, resource, fhir_id, limits)
        if current is None:
            raise updating.unknown(resource, fhir_id)
        withheld = _withheld(inside, resource, current)[1]
        return await updating.update(inside, resource, fhir_id, view.rejoined(document, withheld), condition)

    return await _afterwards(context, resource, limits, "u", step)


async def patch(
    context: Context, resource: Resource, fhir_id: str, change: Change, condition: Condition | None
) -> Answer:
    """See `interactions.patch`. Raises 403 beyond the scopes; the caller patches what it sees, the rest stays."""
    limits = context.limits(resource, "u")
    if not limits:
        return await patching.patch(context, resource, fhir_id, change, condition)

    def seen(document: dict[str, Any]) -> dict[str, Any]:
        before, withheld = _withheld(context, resource, document)
        after = change(before)
        _refuse_others(context, resource, after, "u")
        return view.rejoined(after, withheld)

    async def step(inside: Context) -> Answer:
        if await _current(inside, resource, fhir_id, limits) is None:
            raise not_found(resource, fhir_id)
        return await patching.patch(inside, resource, fhir_id, seen, condition)

    return await _afterwards(context, resource, limits, "u", step)


async def delete(context: Context, resource: Resource, fhir_id: str, condition: Condition | None) -> Answer:
    """See `interactions.delete`. Raises 403 beyond the scopes."""
    limits = context.limits(resource, "d")
    if not limits:
        return await deletion.delete(context, resource, fhir_id, condition)

    async def inside(work: Work) -> Answer:
        own = replace(context, work=work)
        if await _current(own, resource, fhir_id, limits) is None:
            return Answer(204, b"")
        return await deletion.delete(own, resource, fhir_id, condition)

    return await context.work.atomically(inside)


def _refuse_others(context: Context, resource: Resource, document: dict[str, Any], letter: str) -> None:
    """Raises 403 for what a patient's token may not write: another patient's booking, a double booking; 400 before."""
    write.checked(resource, document)
    decision = decide(context.caller, letter, resource.type)
    if resource.type != "Appointment" or any(not limit.patient for limit in decision.limits):
        return
    if view.books_others(document, view.patients_of(context.caller), context.base):
        raise FhirError(Kind.FORBIDDEN, "a patient's token books for that patient alone", "Appointment.participant")
    if document.get("status") in ("cancelled", "entered-in-error"):
        return  # staff may have double booked what its patient cancels
    extensions = document.get("extension", ())
    given = [item for item in extensions if isinstance(item, dict)] if isinstance(extensions, list) else []
    if any(item.get("url") == _DOUBLE_BOOKING and item.get("valueBoolean") is True for item in given):
        raise FhirError(Kind.FORBIDDEN, "allow-double-booking needs a user/ or system/ scope", "Appointment.extension")


def _withheld(context: Context, resource: Resource, document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the caller sees of a resource that is there, and what it does not."""
    patients = view.patients_of(context.caller) if resource.type == "Appointment" else set()
    return view.parted(document, patients, context.base) if patients else (document, {})


async def _current(context: Context, resource: Resource, fhir_id: str, limits: Limits) -> dict[str, Any] | None:
    """The resource, if it is there and within the limits; nobody else changes it until the transaction ends.

    Only what the caller may see is locked: a wait would tell that there is something.
    """
    if await visible(context, resource, fhir_id, limits) is None:
        return None
    source, row_id = located(resource, fhir_id)
    await context.work.read(statements.read_locked(source, row_id, context.tenant))
    found = await visible(context, resource, fhir_id, limits)
    return None if found is None else to_resource(resource, *found)


async def _afterwards(context: Context, resource: Resource, limits: Limits, letter: str, step: Step) -> Answer:
    """What the step answers, if what it leaves is within the limits; else nothing is done and 403 raised."""

    async def inside(work: Work) -> Answer:
        own = replace(context, work=work)
        answer = await step(own)
        if await visible(own, resource, str(parse(answer.body).get("id", "")), limits) is None:
            raise refused(letter, resource.type)
        return answer

    return await context.work.atomically(inside)
