"""Entries of the waitlist that are booked: the hold that is offered to one, and the appointment that it becomes.

Booking the hold fulfils the entry by a trigger, see sql/033; an appointment that somebody found otherwise fulfils it
here, in the same transaction. Knows nothing of $book's inputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_sched.db.fragment import Fragment
from fhir_sched.db.work import Work
from fhir_sched.element import EXTENSION_BASE
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.permitted import create, patch
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.rendering import BUSINESS_IDENTIFIER
from fhir_sched.resources import RESOURCES

_APPOINTMENT = RESOURCES["Appointment"]
_OFFERED = """
select f.appointment_id
from waitlist_offers f
where f.tenant_id = $1::uuid
  and f.entry_id = $2::uuid
  and f.outcome is null
"""
_OWN = ("id", "meta", "text", "priority", "created", "requestedPeriod")


def entry_id(fhir_id: str) -> str | None:
    """The UUID of an entry of the waitlist; None for the id of anything else."""
    found = _APPOINTMENT.parse_id(fhir_id)
    return found[1] if found is not None and found[0].prefix == "wl" else None


async def offered(context: Context, entry: str) -> str | None:
    """The id of the hold that is offered to an entry (a UUID) now."""
    (rows,) = await context.work.read(Fragment(_OFFERED, (context.tenant.encode(), entry.encode())))
    row = rows.first()
    return None if row is None else f"apt-{(row[0] or b'').decode()}"


def appointment_of(fhir_id: str, document: dict[str, Any]) -> dict[str, Any]:
    """The booked appointment that an entry, completed with slots and times, becomes; it names the entry."""
    made = {name: value for name, value in document.items() if name not in _OWN}
    identifiers = [each for each in made.pop("identifier", ()) if each.get("system") != BUSINESS_IDENTIFIER]
    extensions = [each for each in made.pop("extension", ()) if each.get("url") != f"{EXTENSION_BASE}waitlist-criteria"]
    named = {"reference": f"Appointment/{fhir_id}"}
    others = [each for each in made.get("supportingInformation", ()) if each != named]
    made |= {"status": "booked", "supportingInformation": [*others, named]}
    accepted = [
        {**each, "status": "accepted"} if each.get("status") == "needs-action" else each
        for each in made.get("participant", ())
    ]
    made["participant"] = accepted
    return (
        made | ({"identifier": identifiers} if identifiers else {}) | ({"extension": extensions} if extensions else {})
    )


async def take_up(context: Context, fhir_id: str, document: dict[str, Any]) -> Answer:
    """The answer of the create; the entry is fulfilled by it. Raises 404 and 409 for an entry that does not wait."""

    def fulfilled(entry: dict[str, Any]) -> dict[str, Any]:
        if entry["status"] != "waitlist":
            raise FhirError(
                Kind.CONFLICT, f"Appointment/{fhir_id} is {entry['status']}: it waits no more", "Appointment.status"
            )
        return {**entry, "status": "fulfilled", "start": document.get("start"), "end": document.get("end")}

    async def step(work: Work) -> Answer:
        inside = replace(context, work=work)
        answer = await create(inside, _APPOINTMENT, document)
        await patch(inside, _APPOINTMENT, fhir_id, fulfilled, None)
        return answer

    return await context.work.atomically(step)
