"""Why a time can't be had, all reasons at once, and the three nearest that can. IHE ITI Scheduling 3.116, 3.117.

The database says the first thing that is in the way; what else is, and what is free instead, is asked afterwards for
the answer alone: nothing is decided by it. Tells times and slots, never who else is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from fhir_sched import codec
from fhir_sched.actors import provider_uuids
from fhir_sched.db.fragment import Fragment, text_args
from fhir_sched.db.work import Together
from fhir_sched.interactions.context import Context
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.reference import of_element
from fhir_sched.scheduling.proposal import Proposal

_REASONS = """
select 'slot', s.id, s.fhir_status, s.start_at, s.end_at
from unnest($2::uuid[]) with ordinality as named (id, place)
join slots s on s.tenant_id = $1::uuid and s.id = named.id
where s.fhir_status <> 'free'
  and not exists (
      select
      from appointments o
      where o.tenant_id = $1::uuid
        and o.id = $6::uuid
        and o.slot_id = s.id
        and o.status = 'pending'
  )
union all
select 'practitioner', p.provider_id, null, p.start_at, p.end_at
from provider_times p
join appointments a on a.tenant_id = p.tenant_id and a.id = p.appointment_id
where p.tenant_id = $1::uuid
  and p.provider_id = any ($3::uuid[])
  and p.start_at < $5::timestamptz
  and p.end_at > $4::timestamptz
  and p.appointment_id is distinct from $6::uuid
  and p.slot_id is distinct from ($2::uuid[])[1]
  and (a.hold_expires_at is null or a.hold_expires_at > now())
"""
_NEAREST = """
with wanted as (
    select s.schedule_id, s.start_at
    from slots s
    where s.tenant_id = $1::uuid
      and s.id = $2::uuid
)
select n.id, n.start_at, n.end_at
from wanted w
cross join lateral (
    (
        select s.id, s.start_at, s.end_at
        from slots s
        where s.tenant_id = $1::uuid
          and s.schedule_id = w.schedule_id
          and s.fhir_status = 'free'
          and s.start_at >= w.start_at
          and s.start_at > now()
        order by s.start_at
        limit 3
    )
    union all
    (
        select s.id, s.start_at, s.end_at
        from slots s
        where s.tenant_id = $1::uuid
          and s.schedule_id = w.schedule_id
          and s.fhir_status = 'free'
          and s.start_at < w.start_at
          and s.start_at > now()
        order by s.start_at desc
        limit 3
    )
) n
where n.id <> $2::uuid
order by abs(extract(epoch from n.start_at - w.start_at)), n.start_at
limit 3
"""
_SAID = {
    "busy": "is taken",
    "busy-tentative": "is held for somebody",
    "busy-unavailable": "is blocked",
    "entered-in-error": "was entered in error",
}


async def refuse(
    context: Context, error: FhirError, document: dict[str, Any], kind: Kind, *, own: str | None = None
) -> NoReturn:
    """Raise the refusal (409) of an appointment with all reasons, of severity fatal, and what is free instead.

    `own` is the UUID of the appointment itself. Inside a transaction of several entries, which is at its end then,
    the refusal stays as it is.
    """
    if error.status != Kind.CONFLICT.status or isinstance(context.work, Together):
        raise error
    slots = [reference["reference"].partition("slt-")[2] for reference in document.get("slot", ())]
    targets = [of_element(item.get("actor"), context.base) for item in document.get("participant", ())]
    asked = Fragment(
        _REASONS,
        text_args(
            context.tenant,
            _array(slots),
            _array(provider_uuids(targets)),
            document.get("start", "infinity"),
            document.get("end", "-infinity"),
            own,
        ),
    )
    (rows,) = await context.work.read(asked)
    reasons = list(dict.fromkeys(_reason(row) for row in rows.all()))
    issues = [Issue(kind, said, where, severity="fatal") for said, where in reasons]
    issues = issues or [Issue(kind, each.diagnostics, each.expression, severity="fatal") for each in error.issues]
    raise FhirError.of([*issues, *await _alternatives(context, slots, document)]) from error


def gone(kind: Kind) -> FhirError:
    """409: what was proposed is not there any more."""
    return FhirError.of(
        [Issue(kind, "What was proposed is not there any more: find again.", "Appointment.slot", severity="fatal")]
    )


def _array(values: Sequence[str]) -> str:
    return "{" + ",".join(values) + "}"


def _reason(row: Sequence[bytes | None]) -> tuple[str, str]:
    what, row_id, status, start, end = row
    time = f"from {_instant(start)} to {_instant(end)}"
    if what == b"slot":
        return f"Slot/slt-{(row_id or b'').decode()} {_SAID[(status or b'').decode()]}, {time}.", "Appointment.slot"
    return f"The practitioner has another appointment {time}.", "Appointment.start"


async def _alternatives(context: Context, slots: Sequence[str], document: dict[str, Any]) -> list[Issue]:
    """An issue for each of the nearest free times of the same schedule, with the id by which it can be held."""
    if len(slots) != 1:
        return []
    patient = next((item["actor"]["reference"] for item in document["participant"] if _is_patient(item)), "")
    (rows,) = await context.work.read(Fragment(_NEAREST, text_args(context.tenant, slots[0])))
    return [
        Issue(
            Kind.INFORMATIONAL,
            f"Appointment/{Proposal((row[0] or b'').decode(), (), patient).id} is free, "
            f"from {_instant(row[1])} to {_instant(row[2])}.",
            severity="information",
        )
        for row in rows.all()
    ]


def _is_patient(item: dict[str, Any]) -> bool:
    return str(item.get("actor", {}).get("reference", "")).startswith("Patient/")


def _instant(column: bytes | None) -> str:
    return (codec.instant(column or b"") or b"").decode()
