"""$book-series: an appointment that comes again every few weeks, booked as a whole or not at all, with every reason.

Each occurrence is a create of its own inside one transaction, and whatever refuses a booking refuses it there. An
occurrence that fails is undone to its savepoint and the next is tried, so that the refusal names all of them; then
nothing stays. Weeks are counted on the clock of the schedule's zone. Knows no rule of booking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fhir_sched import codec
from fhir_sched.db.errors import lost
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.work import Work
from fhir_sched.interactions import write
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.permitted import create
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.resources import RESOURCES

if TYPE_CHECKING:
    from fhir_sched.interactions.invocation import Invocation

SERIES_SYSTEM = "urn:fhir-sched:series"
"""System of the identifier that the appointments of a series share."""

MAX_COUNT = 104

_APPOINTMENT = RESOURCES["Appointment"]
_REPORTED = frozenset({409, 422})
_SAVE = Fragment("savepoint occurrence")
_UNDO = Fragment("rollback to savepoint occurrence")
_DONE = Fragment("release savepoint occurrence")

_OCCURRENCES = """
with first as (
    select s.id, s.schedule_id, s.start_at, s.end_at - s.start_at as length, c.zone, named.place
    from unnest($2::uuid[]) with ordinality as named (id, place)
    join slots s on s.tenant_id = $1::uuid and s.id = named.id
    join schedules c on c.tenant_id = s.tenant_id and c.id = s.schedule_id
), wanted as (
    select f.*, n,
           (f.start_at at time zone f.zone + n * $4::integer * interval '7 days') at time zone f.zone as at
    from first f
    cross join generate_series(0, $3::integer - 1) as n
)
select w.n, w.schedule_id, w.at, case when w.n = 0 then w.id else found.id end,
       ($5::timestamptz at time zone w.zone + w.n * $4::integer * interval '7 days') at time zone w.zone,
       ($5::timestamptz at time zone w.zone + w.n * $4::integer * interval '7 days') at time zone w.zone
           + ($6::timestamptz - $5::timestamptz)
from wanted w
left join lateral (
    select s.id
    from slots s
    where s.tenant_id = $1::uuid
      and s.schedule_id = w.schedule_id
      and s.start_at = w.at
      and s.end_at = w.at + w.length
    order by s.status <> 'free', s.status <> 'busy', s.id
    limit 1
) as found on true
order by w.n, w.place
"""
# For each occurrence and slot: number, schedule, start of the slot, the slot (null: there is none), start and end of
# the appointment. Nothing for slots that are not there.


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One appointment of the series; `missing` says for which schedules there is no slot at its time."""

    number: int
    document: dict[str, Any]
    missing: tuple[str, ...]
    at: str


async def book_series(context: Context, invocation: Invocation) -> Answer:
    """200 with a Bundle of the new appointments; 409 or 422 with every reason of every occurrence, and none booked."""
    given = invocation.given
    document = given.one("appointment")
    count, weeks = given.one("count"), given.one("weeks") or 1
    if not 1 < count <= MAX_COUNT:
        raise FhirError(Kind.VALUE, f"count is a number from 2 to {MAX_COUNT}, not {count}", "Parameters.parameter")
    slots = _slots(context, document)

    async def step(work: Work) -> Answer:
        inside = replace(context, work=work)
        occurrences = await _occurrences(inside, document, slots, count, weeks)
        return _bundle(context, await _booked(inside, occurrences))

    return await context.work.atomically(step)


def _slots(context: Context, document: dict[str, Any]) -> bytes:
    """The slots of the first appointment as a uuid[]. Raises 400 and 422 for what can't be booked at all."""
    write.checked(_APPOINTMENT, document)
    source = _APPOINTMENT.source_of(document)
    columns = write.columns_of(context, _APPOINTMENT, source, document)
    first, others = columns.get("slot_id"), columns.get("extra_slot_ids")
    if first is None or document.get("start") is None:
        raise FhirError(
            Kind.BUSINESS_RULE, "a series begins with an appointment that has slots and times", "Appointment.slot"
        )
    return b"{" + first + (b"," + others.strip(b"{}") if others else b"") + b"}"


async def _occurrences(
    context: Context, document: dict[str, Any], slots: bytes, count: int, weeks: int
) -> list[Occurrence]:
    """What is to be booked, in order."""
    start, end = (str(document[name]).encode() for name in ("start", "end"))
    args = (context.tenant.encode(), slots, str(count).encode(), str(weeks).encode(), start, end)
    (rows,) = await context.work.read(Fragment(_OCCURRENCES, args))
    found: dict[int, list[Any]] = {}
    for row in rows.all():
        found.setdefault(int(row[0] or 0), []).append(row)
    if len(found.get(0, ())) < slots.count(b",") + 1:
        raise FhirError(Kind.BUSINESS_RULE, "The appointment names a slot that does not exist.", "Appointment.slot")
    shared = {"system": SERIES_SYSTEM, "value": str(uuid4())}
    return [_occurrence(number, document, shared, places) for number, places in found.items()]


def _occurrence(number: int, document: dict[str, Any], shared: dict[str, str], places: list[Any]) -> Occurrence:
    made = {**document, "identifier": [*document.get("identifier", ()), shared]}
    if number:
        made |= {"start": _instant(places[0][4]), "end": _instant(places[0][5])}
        made["slot"] = [{"reference": f"Slot/slt-{row[3].decode()}"} for row in places if row[3]]
    missing = tuple(f"Schedule/sch-{row[1].decode()} at {_instant(row[2])}" for row in places if row[3] is None)
    return Occurrence(number + 1, made, missing, made["start"])


def _instant(column: bytes) -> str:
    return (codec.instant(column) or b"").decode()


async def _booked(context: Context, occurrences: list[Occurrence]) -> list[Answer]:
    """The answers of the creates. Raises FhirError with all that stands in the way of any of them."""
    answers: list[Answer] = []
    issues: list[Issue] = []
    for each in occurrences:
        if each.missing:
            issues += _said(each, [Issue(Kind.CONFLICT, f"there is no slot in {name}") for name in each.missing])
            continue
        await context.work.write(_SAVE)
        try:
            answers.append(await create(context, _APPOINTMENT, each.document))
            await context.work.write(_DONE)
        except FhirError as error:
            if not _is_reason(error):
                raise
            await context.work.write(_UNDO)
            issues += _said(each, error.issues)
    if issues:
        raise FhirError.of(issues)
    return answers


def _is_reason(error: FhirError) -> bool:
    """Whether it tells something of this occurrence; a deadlock, say, is for whoever began the transaction."""
    return error.status in _REPORTED and not lost(error)


def _said(each: Occurrence, issues: Any) -> Iterator[Issue]:
    for issue in issues:
        place = f"occurrence {each.number}, {each.at}: "
        yield Issue(issue.kind, place + issue.diagnostics, issue.expression or "Appointment.slot", issue.severity)


def _bundle(context: Context, answers: list[Answer]) -> Answer:
    entries = [
        b'{"fullUrl":"%b","resource":%b}' % (answer.location.partition("/_history/")[0].encode(), answer.body)
        for answer in answers
    ]
    return Answer(200, b'{"resourceType":"Bundle","type":"collection","entry":[%b]}' % b",".join(entries))
