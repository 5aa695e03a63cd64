"""$generate-slots: the availability rules of a Schedule become free slots, on the days from start to end.

Law: a rule's slots fill the real time between its local start and end in the schedule's zone. What is booked, held,
made by hand or under an exception stays as it is; again adds nothing; what changed rules do not give any more is taken
back (`entered-in-error`), where it is free and still to come. All of it is one statement, `fhir_sched_generate_slots`,
which `fhir-sched slots generate` runs as well. Knows no rule.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from fhir_sched import codec
from fhir_sched.db.fragment import Fragment
from fhir_sched.document import dumps
from fhir_sched.interactions.context import Answer, Context, located
from fhir_sched.interactions.invocation import Invocation
from fhir_sched.interactions.read import missing
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.resources import RESOURCES
from fhir_sched.resources.operations import MOST_DAYS, MOST_SLOTS
from fhir_sched.security.guard import refused

_GENERATE: Final = """
select g.added, g.withdrawn
from fhir_sched_generate_slots($1::uuid, $2::uuid, $3::date, $4::date, at_most => $5::integer) g"""


async def generate_slots(context: Context, invocation: Invocation) -> Answer:
    """200 with a Parameters resource: how many slots were added and withdrawn.

    Raises 403 for whoever may create some Slots only, 404 or 410 without such a Schedule, 422 for an inactive one, for
    days in the wrong order and for more than can be done at once.
    """
    schedule = RESOURCES["Schedule"]
    if context.limits(RESOURCES["Slot"], "c"):
        raise refused("c", "Slot")
    source, row_id = located(schedule, invocation.fhir_id)
    first, last = _days(invocation.given.one("start"), invocation.given.one("end"))
    texts = (context.tenant, row_id, first.isoformat(), last.isoformat(), str(MOST_SLOTS))
    work = Fragment(_GENERATE, tuple(text.encode() for text in texts))
    if context.trail is not None:
        work = context.trail.operation(work, "Schedule", invocation.fhir_id)
    (rows,) = await context.work.write(work)
    row = rows.first()
    if row is None:
        raise await missing(context, schedule, source, invocation.fhir_id, row_id)
    counts = zip(("added", "withdrawn"), row, strict=True)
    listed = [{"name": name, "valueUnsignedInt": int(count or b"0")} for name, count in counts]
    return Answer(200, dumps({"resourceType": "Parameters", "parameter": listed}))


def _days(start: str, end: str) -> tuple[date, date]:
    """The first and the last day; a month or year that is named begins with its first and ends with its last day."""
    began, ended = codec.interval(start), codec.interval(end)
    if began is None or ended is None:
        raise FhirError(Kind.VALUE, f"{start} to {end} cannot be counted in days", "Parameters.parameter")
    first, last = began.low.date(), (ended.high - timedelta.resolution).date()
    if last < first:
        raise FhirError(
            Kind.BUSINESS_RULE, f"end {end} is before start {start}; both days are included", "Parameters.parameter"
        )
    if (last - first).days >= MOST_DAYS:
        raise FhirError(
            Kind.BUSINESS_RULE, f"{start} to {end} is more than {MOST_DAYS} days; ask for fewer", "Parameters.parameter"
        )
    return first, last
