"""$hold: keep a proposed time for a while. IHE ITI-116; the header Expires as in Argonaut Scheduling.

A hold is a pending appointment with the moment of its end, which the database's clock decides (sql/019). Held again, it
lasts longer; a patient may have a few at once. Knows nothing of finding or booking.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from fhir_sched import bundle, statements
from fhir_sched.db.fragment import Fragment, text_args
from fhir_sched.db.work import Work
from fhir_sched.definition import Source
from fhir_sched.document import parse
from fhir_sched.interactions import write
from fhir_sched.interactions.context import Answer, Context, located, not_found
from fhir_sched.interactions.permitted import create, patch
from fhir_sched.interactions.proposing import appointment, nobody_yet, schedules_of, slots_of
from fhir_sched.interactions.read import missing, visible
from fhir_sched.interactions.unavailable import gone, refuse
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.reference import of_element
from fhir_sched.rendering import to_resource
from fhir_sched.resources import RESOURCES
from fhir_sched.resources.appointment import HOLD_EXPIRES
from fhir_sched.scheduling import proposal
from fhir_sched.security import view

if TYPE_CHECKING:
    from fhir_sched.interactions.invocation import Invocation

APPOINTMENT = RESOURCES["Appointment"]
_APPOINTMENTS = APPOINTMENT.sources[0]
_LOCK = "select pg_advisory_xact_lock(hashtextextended('holds' || $1 || $2, 0))"
_COUNT = """
select count(*)
from appointments a
where a.tenant_id = $1::uuid
  and a.patient_id = $2::uuid
  and a.status = 'pending'
  and a.hold_expires_at > clock_timestamp()
"""


async def hold(context: Context, invocation: Invocation) -> Answer:
    """200 with a searchset of the held appointment, and when it ends in Expires.

    Raises 409 with every reason (fatal, not-found) and the nearest alternatives, 422 for one hold too many, 404.
    """
    fhir_id = appointment_id(context, invocation.given.one("appointment-reference"))
    proposed = proposal.parse(fhir_id)
    if proposed is not None:
        answer = await _hold(context, await drafted(context, proposed, "pending", Kind.NO_LONGER))
    else:
        answer = await _hold_again(context, fhir_id)
    return told(context, answer, "$hold")


async def drafted(context: Context, proposed: proposal.Proposal, status: str, kind: Kind) -> dict[str, Any]:
    """The Appointment that a proposal becomes. Raises 409 where its slots are gone."""
    slots = await slots_of(context, proposed)
    if not slots:
        raise gone(kind)
    own = sorted(view.patients_of(context.caller))
    references = [proposed.patient] if proposed.patient else own[:1]
    patients = [{"reference": each} for each in references] or [nobody_yet(context.subject)]
    return appointment(status, slots, await schedules_of(context, slots), patients)


async def _hold(context: Context, document: dict[str, Any]) -> Answer:
    async def step(work: Work) -> Answer:
        inside = replace(context, work=work)
        await _make_room(inside, document)
        return await create(inside, APPOINTMENT, document, hold_seconds=context.settings.hold_seconds)

    try:
        return await context.work.atomically(step)
    except FhirError as error:
        await refuse(context, error, document, Kind.NO_LONGER)


async def _make_room(context: Context, document: dict[str, Any]) -> None:
    """Raises 422 where the patient has as many holds as may be; until the transaction ends no other can be added."""
    targets = [of_element(item.get("actor"), context.base) for item in document["participant"]]
    patient = next(target.uuid for target in targets if target is not None and target.type == "Patient")
    most = context.settings.holds_per_patient
    args = text_args(context.tenant, patient)
    _, rows = await context.work.write(Fragment(_LOCK, args), Fragment(_COUNT, args))
    if int(rows.get(0, 0) or 0) >= most:
        raise FhirError(
            Kind.BUSINESS_RULE,
            f"a patient may hold {most} appointments at once: book or give up one of them",
            "Appointment",
        )


async def _hold_again(context: Context, fhir_id: str) -> Answer:
    """A hold that lasts longer, or a stored proposal that becomes one. Raises 409 for what can't be held any more."""
    source, row_id = located(APPOINTMENT, fhir_id)
    document = await _current(context, source, fhir_id, row_id)
    held = any(item.get("url") == HOLD_EXPIRES.url for item in document.get("extension", ()))
    if source is not _APPOINTMENTS or not (held or document["status"] == "proposed"):
        raise FhirError(
            Kind.NO_LONGER,
            f"Appointment/{fhir_id} is {document['status']}: only what is proposed or already held can be held",
            "Appointment.status",
        )

    async def step(work: Work) -> Answer:
        inside = replace(context, work=work)
        if not held:
            await _make_room(inside, document)
            await patch(inside, APPOINTMENT, fhir_id, lambda found: {**found, "status": "pending"}, None)
        longer = statements.prolong(source, row_id, context.tenant, context.settings.hold_seconds)
        (rows,) = await work.write(context.recorded(longer, APPOINTMENT, source, "update"))
        row = rows.first()
        if row is None:
            raise FhirError(Kind.NO_LONGER, f"Appointment/{fhir_id} is not held any more", "Appointment.status")
        return write.answer(inside, APPOINTMENT, source, row, 200)

    try:
        return await context.work.atomically(step)
    except FhirError as error:
        await refuse(context, error, document, Kind.NO_LONGER, own=row_id)


async def _current(context: Context, source: Source, fhir_id: str, row_id: str) -> dict[str, Any]:
    """The appointment, as far as the caller may change it. Raises 404 or 410."""
    limits = context.limits(APPOINTMENT, "u")
    if limits:
        found = await visible(context, APPOINTMENT, fhir_id, limits)
        if found is None:
            raise not_found(APPOINTMENT, fhir_id)
        return to_resource(APPOINTMENT, *found)
    (rows,) = await context.work.read(statements.read(source, row_id, context.tenant))
    row = rows.first()
    if row is None:
        raise await missing(context, APPOINTMENT, source, fhir_id, row_id)
    return to_resource(APPOINTMENT, source, row)


def appointment_id(context: Context, reference: dict[str, Any]) -> str:
    """The logical id of an appointment of this server. Raises 400 for a reference to something else."""
    target = of_element(reference, context.base)
    if target is None or target.url or target.type not in ("Appointment", ""):
        raise FhirError(
            Kind.VALUE, "appointment-reference names an Appointment of this server, by Appointment/<id>", "Parameters"
        )
    return target.id


def told(context: Context, answer: Answer, word: str) -> Answer:
    """The appointment of an answer in a searchset; Expires for one that is held."""
    document = parse(answer.body)
    entry = bundle.entry(f"{context.base}/Appointment/{document['id']}", answer.body)
    body = bundle.searchset([entry], [("self", f"{context.base}/Appointment/{word}")], 1)
    expires = [item["valueInstant"] for item in document.get("extension", ()) if item.get("url") == HOLD_EXPIRES.url]
    headers = tuple(("Expires", _http_date(each)) for each in expires)
    return Answer(200, body, headers=headers)


def _http_date(instant: str) -> str:
    return format_datetime(datetime.fromisoformat(instant).astimezone(UTC), usegmt=True)
