"""Slots -> the Appointment that they propose: who takes part, when, what for. IHE ITI Scheduling (ihe-sched-appt).

What the slot and its schedule say (actors, types, specialty) becomes the appointment's. Knows no operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fhir_sched.db.fragment import Fragment, text_args
from fhir_sched.interactions.context import Context
from fhir_sched.rendering import to_resource
from fhir_sched.resources import RESOURCES
from fhir_sched.scheduling.proposal import SUFFIX_DIGITS, Proposal

SLOT, SCHEDULE = RESOURCES["Slot"], RESOURCES["Schedule"]
SLOTS, SCHEDULES = SLOT.sources[0], SCHEDULE.sources[0]
_SLOT_COLUMNS = ", ".join(SLOTS.select_list)
_SCHEDULE_COLUMNS = ", ".join(SCHEDULES.select_list)
_NOBODY = "urn:fhir-sched:holder"
"""System of the identifier that stands for a patient who is not named yet: the caller's subject."""
_TAKEN_OVER = ("serviceCategory", "serviceType", "specialty")

# The slot itself, and those at its time whose id ends in the digits given.
_WANTED = f"""
select {_SLOT_COLUMNS}
from slots a
where a.tenant_id = $1::uuid
  and a.id = any(array(
      select $2::uuid
      union
      select f.id
      from slots s
      join slots f on f.tenant_id = s.tenant_id
          and f.start_at <= s.start_at and f.start_at > s.start_at - interval '1 day'
      where s.tenant_id = $1::uuid
        and s.id = $2::uuid
        and cardinality($3::text[]) > 0
        and f.end_at >= s.end_at
        and right(f.id::text, {SUFFIX_DIGITS}) = any ($3::text[])
  ))
order by a.id <> $2::uuid, a.id
"""  # noqa: S608 - columns of the declarations
_THEIR_SCHEDULES = f"""
select {_SCHEDULE_COLUMNS}
from schedules a
where a.tenant_id = $1::uuid
  and a.id = any ($2::uuid[])
"""  # noqa: S608


async def slots_of(context: Context, proposal: Proposal) -> list[dict[str, Any]]:
    """The Slots of a proposal, the first the one that it is about; empty where that is gone."""
    further = "{" + ",".join(proposal.further) + "}"
    (rows,) = await context.work.read(Fragment(_WANTED, text_args(context.tenant, proposal.slot, further)))
    found = [to_resource(SLOT, SLOTS, row) for row in rows.all()]
    complete = found and found[0]["id"] == f"{SLOTS.prefix}-{proposal.slot}"
    return found if complete and len(found) == 1 + len(proposal.further) else []


async def schedules_of(context: Context, slots: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The Schedules of these Slots by their references."""
    listed = "{" + ",".join(sorted({schedule_id(slot) for slot in slots})) + "}"
    (rows,) = await context.work.read(Fragment(_THEIR_SCHEDULES, text_args(context.tenant, listed)))
    found = [to_resource(SCHEDULE, SCHEDULES, row) for row in rows.all()]
    return {f"Schedule/{each['id']}": each for each in found}


def schedule_id(slot: dict[str, Any]) -> str:
    """The UUID of a slot's schedule."""
    reference: str = slot["schedule"]["reference"]
    return reference.removeprefix(f"Schedule/{SCHEDULES.prefix}-")


def appointment(
    status: str,
    slots: Sequence[dict[str, Any]],
    schedules: dict[str, dict[str, Any]],
    patients: Sequence[dict[str, Any]],
    period: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The Appointment in these slots for these actors, as long as the first slot; `period` is what was asked for."""
    first = slots[0]
    found = [schedules[slot["schedule"]["reference"]] for slot in slots]
    actors = [*patients, *(actor for schedule in found for actor in schedule.get("actor", ()))]
    word = "needs-action" if status == "proposed" else "accepted"
    made: dict[str, Any] = {"resourceType": "Appointment", "status": status}
    for name in _TAKEN_OVER:
        said = first.get(name) or found[0].get(name)
        if said:
            made[name] = said
    if "appointmentType" in first:
        made["appointmentType"] = first["appointmentType"]
    made |= {"start": first["start"], "end": first["end"]}
    made["slot"] = [{"reference": f"Slot/{slot['id']}"} for slot in slots]
    made["participant"] = [{"actor": actor, "status": word} for actor in _each_once(actors)]
    made["requestedPeriod"] = [period or {"start": first["start"], "end": first["end"]}]
    return made


def _each_once(actors: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({str(actor.get("reference", actor)): actor for actor in actors}.values())


def nobody_yet(subject: str) -> dict[str, Any]:
    """The actor that stands for a patient who is named when the appointment is booked."""
    return {"type": "Patient", "identifier": {"system": _NOBODY, "value": subject}, "display": "not named yet"}


def is_nobody(actor: Any) -> bool:
    """Whether an actor is such a stand-in."""
    identifier = actor.get("identifier") if isinstance(actor, dict) else None
    return isinstance(identifier, dict) and identifier.get("system") == _NOBODY
