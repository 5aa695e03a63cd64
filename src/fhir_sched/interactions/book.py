"""$book: book what is proposed or held, change or cancel what is booked. IHE ITI-117.

What is asked for follows from the input: a reference, or a resource of status pending, books; a resource of status
booked changes; one of status cancelled cancels. An entry of the waitlist is taken up. Confirming a hold is a change of
one row, which the database refuses when the hold is over. Knows nothing of finding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fhir_sched.document import parse
from fhir_sched.interactions import taking_up
from fhir_sched.interactions.context import Answer, Context, not_found
from fhir_sched.interactions.hold import APPOINTMENT, appointment_id, drafted, told
from fhir_sched.interactions.permitted import create, patch
from fhir_sched.interactions.proposing import is_nobody
from fhir_sched.interactions.read import read
from fhir_sched.interactions.unavailable import refuse
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.scheduling import proposal
from fhir_sched.security import view

if TYPE_CHECKING:
    from fhir_sched.interactions.invocation import Invocation

_Document = dict[str, Any]
_Change = Callable[[_Document], _Document]
_OPEN = ("proposed", "pending")
_ENDED = ("cancelled", "entered-in-error")


async def book(context: Context, invocation: Invocation) -> Answer:
    """200 with a searchset of the appointment as it is now.

    Raises 400 for inputs that do not go together, 404, 409 with every reason (fatal) and the nearest alternatives, 422.
    """
    reference = invocation.given.one("appointment-reference")
    resource = invocation.given.one("appointment-resource")
    if (reference is None) == (resource is None):
        raise FhirError(
            Kind.INVALID, "$book takes either appointment-reference or appointment-resource", "Parameters.parameter"
        )
    comment = invocation.given.one("comment")
    note: _Document = {} if comment is None else {"comment": comment}
    finish = _finishing(context, invocation, note)
    if reference is not None:
        answer = await _book_named(context, appointment_id(context, reference), finish)
    else:
        answer = await _by_status(context, resource, note, finish)
    return told(context, answer, "$book")


async def _by_status(context: Context, resource: _Document, note: _Document, finish: _Change) -> Answer:
    fhir_id = str(resource.get("id", ""))
    if taking_up.entry_id(fhir_id) is not None and resource["status"] not in _ENDED:
        return await _take_up(context, fhir_id, resource, finish)
    match resource["status"]:
        case "pending" | "proposed":
            return await _book_resource(context, resource, finish)
        case "booked" if fhir_id:
            return await _changed(context, fhir_id, lambda found: finish(_replaced(found, resource)))
        case "cancelled" if fhir_id:
            return await _changed(context, fhir_id, lambda found: _cancelled(found, {**resource, **note}))
        case "booked" | "cancelled":
            raise FhirError(
                Kind.REQUIRED, "to change or cancel an appointment its id is needed", "Parameters.parameter.resource.id"
            )
    raise FhirError(
        Kind.CODE_INVALID,
        f"an appointment-resource is pending (booked then), booked (changed) or cancelled, not {resource['status']}",
        "Parameters.parameter.resource.status",
    )


async def _book_named(context: Context, fhir_id: str, finish: _Change) -> Answer:
    """A proposal by its id, or a stored appointment that is proposed or held."""
    proposed = proposal.parse(fhir_id)
    if taking_up.entry_id(fhir_id) is not None:
        return await _take_up(context, fhir_id, {}, finish)
    if proposed is None:
        return await _changed(context, fhir_id, lambda found: finish(_confirmed(found, found)))
    return await _created(context, finish(await drafted(context, proposed, "booked", Kind.CONFLICT)))


async def _book_resource(context: Context, resource: _Document, finish: _Change) -> Answer:
    """A resource that the client completed: of a proposal, of a hold, or one of its own."""
    fhir_id = str(resource.get("id", ""))
    proposed = proposal.parse(fhir_id)
    booked = {**resource, "status": "booked"}
    if proposed is not None and "slot" not in resource:
        booked["slot"] = (await drafted(context, proposed, "booked", Kind.CONFLICT))["slot"]
    if proposed is None and APPOINTMENT.parse_id(fhir_id) is not None:
        return await _changed(context, fhir_id, lambda found: finish(_confirmed(found, booked)))
    return await _created(context, finish({key: value for key, value in booked.items() if key != "id"}))


async def _take_up(context: Context, fhir_id: str, resource: _Document, finish: _Change) -> Answer:
    """An entry of the waitlist: what is offered to it is booked, or the slots that the resource names."""
    hold = await taking_up.offered(context, taking_up.entry_id(fhir_id) or "")
    slots = resource.get("slot")
    if hold is not None and (slots is None or slots == await _slots_of(context, hold)):
        return await _changed(context, hold, lambda found: finish(_confirmed(found, found)))
    if "start" not in resource:
        why = f"nothing is offered to Appointment/{fhir_id}; send it as appointment-resource with slot, start and end"
        raise FhirError(Kind.CONFLICT, why, "Appointment.slot")
    document = finish(taking_up.appointment_of(fhir_id, resource))
    try:
        return await taking_up.take_up(context, fhir_id, document)
    except FhirError as error:
        await refuse(context, error, document, Kind.CONFLICT)


async def _slots_of(context: Context, fhir_id: str) -> Any:
    return parse((await read(context, APPOINTMENT, fhir_id)).body).get("slot")


async def _created(context: Context, document: _Document) -> Answer:
    try:
        return await create(context, APPOINTMENT, document)
    except FhirError as error:
        await refuse(context, error, document, Kind.CONFLICT)


async def _changed(context: Context, fhir_id: str, change: _Change) -> Answer:
    found = APPOINTMENT.parse_id(fhir_id)
    if found is None:
        raise not_found(APPOINTMENT, fhir_id)
    wanted: _Document = {}

    def noted(document: _Document) -> _Document:
        wanted.update(change(document))
        return dict(wanted)

    try:
        return await patch(context, APPOINTMENT, fhir_id, noted, None)
    except FhirError as error:
        if not wanted:
            raise
        await refuse(context, error, wanted, Kind.CONFLICT, own=found[1])


def _confirmed(found: _Document, wanted: _Document) -> _Document:
    if found["status"] not in _OPEN:
        raise _wrong_status(found, "only what is proposed or held can be booked")
    participants = [
        {**item, "status": "accepted"} if item.get("status") == "needs-action" else item
        for item in wanted.get("participant", ())
    ]
    return {**wanted, "id": found["id"], "status": "booked", "participant": participants}


def _replaced(found: _Document, wanted: _Document) -> _Document:
    if found["status"] in _ENDED:
        raise _wrong_status(found, "it can't be changed; book a new one")
    return {**wanted, "id": found["id"]}


def _cancelled(found: _Document, wanted: _Document) -> _Document:
    """The stored appointment with the reasons for its end; nothing else of what was sent counts."""
    if found["status"] in _ENDED:
        raise _wrong_status(found, "it is not there to be cancelled")
    kept: _Document = {name: wanted[name] for name in ("cancelationReason", "comment") if name in wanted}
    urls = {item.get("url") for item in found.get("extension", ())}
    added = [item for item in wanted.get("extension", ()) if item.get("url") not in urls]
    extensions = [*found.get("extension", ()), *added]
    return {**found, **kept, "status": "cancelled", **({"extension": extensions} if extensions else {})}


def _wrong_status(found: _Document, why: str) -> FhirError:
    return FhirError(Kind.CONFLICT, f"Appointment/{found['id']} is {found['status']}: {why}", "Appointment.status")


def _finishing(context: Context, invocation: Invocation, note: _Document) -> _Change:
    """Puts in for whom it is and the note. Raises 422 where nobody is named."""
    patients = [_actor(each) for each in invocation.given.every("patient-resource")]
    own = [{"reference": each} for each in sorted(view.patients_of(context.caller))]

    def finish(document: _Document) -> _Document:
        listed = document.get("participant", ())
        named = [item for item in listed if not is_nobody(item.get("actor"))]
        actors = patients or (own if len(named) < len(listed) else [])
        if len(named) < len(listed) and not actors:
            raise FhirError(
                Kind.BUSINESS_RULE,
                "for whom is it? Name the patient by patient-resource, or as a participant of appointment-resource",
                "Parameters.parameter",
            )
        there = [item.get("actor", {}).get("reference") for item in named]
        added = [actor for actor in actors if actor.get("reference") is None or actor["reference"] not in there]
        participants = [*({"actor": actor, "status": "accepted"} for actor in added), *named]
        return {**document, **note, **({"participant": participants} if participants else {})}

    return finish


def _actor(patient: _Document) -> _Document:
    """A reference to a Patient that was sent: by its id, else by its identifier. Raises 422 for neither."""
    if "id" in patient:
        return {"reference": f"Patient/{patient['id']}"}
    for identifier in patient.get("identifier", ()):
        if "value" in identifier:
            return {"type": "Patient", "identifier": identifier}
    raise FhirError(
        Kind.BUSINESS_RULE, "a patient-resource needs an id or an identifier by which it is known", "Patient.identifier"
    )
