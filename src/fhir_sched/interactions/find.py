"""$find: proposed appointments in free slots, the earliest first. IHE ITI-115.

Kinds of participants that are named must all take part, of each kind any one; codes are fulfilled by the schedule or
by the slot. Nothing is stored: a proposal's id is all that $hold and $book need. Knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fhir_sched import bundle, codec
from fhir_sched.actors import provider_uuids
from fhir_sched.document import dumps
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.paging import Page, page_of, token
from fhir_sched.interactions.proposing import SCHEDULE, SCHEDULES, SLOT, SLOTS, appointment
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.reference import of_element
from fhir_sched.rendering import to_resource
from fhir_sched.scheduling.proposal import SUFFIX_DIGITS, Proposal
from fhir_sched.search import bookable, openings
from fhir_sched.search.openings import COUNTED, SCHEDULE_COLUMNS, SLOT_COLUMNS, Openings
from fhir_sched.search.parse import NOT_OURS
from fhir_sched.search.query import AnyOf, Condition, Criterion, ReferenceValue, TokenValue
from fhir_sched.security import view

if TYPE_CHECKING:
    from fhir_sched.definition import Param
    from fhir_sched.interactions.given import Given
    from fhir_sched.interactions.invocation import Invocation

_DAYS = {day: number for number, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 1)}
_KINDS = (("practitioner", "Practitioner"), ("location-reference", "Location"), ("organization", "Organization"))
_ACTOR = SCHEDULES.columns.index("actor_id")
_CODES = (("specialty", ("specialty",)), ("visit-type", ("service-type", "appointment-type")))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the proposals take over from the request."""

    patients: tuple[dict[str, Any], ...]
    period: dict[str, Any]
    further: dict[str, Any]


async def find(context: Context, invocation: Invocation) -> Answer:
    """200 with a searchset of proposals: a page, its total, and a next link where there are more.

    Raises 400 for inputs that are not understood, 403 for another patient than the token's.
    """
    page = page_of(invocation.call, context.tenant)
    asked = _asked(context, invocation.given)
    wanted = replace(_wanted(context, invocation.given), after=page.after, count=page.count)
    (rows,) = await context.work.read(openings.statement(wanted, context.tenant))
    found = rows.all()
    proposed = await _possible(context, [_proposed(row, asked) for row in found[: page.count]])
    entries = [_entry(context, each) for each in proposed]
    more = len(found) > page.count
    total = page.total if page.total is not None else _total(found, len(entries), more)
    asking = invocation.call
    inputs = [pair for pair in asking.pairs if pair[0] not in NOT_OURS] if asking.method != "POST" else []
    links = [("self", bundle.url(context.base, "Appointment/$find", inputs))]
    if more and page.count:
        last = found[page.count - 1]
        after = ((last[-2] or b"").decode(), (last[0] or b"").decode())
        following = token(invocation.call, Page(after, page.count, total), context.tenant)
        links.append(("next", bundle.url(context.base, "Appointment/$find", [("_page", following)])))
    return Answer(200, bundle.searchset([*entries, *_remarks(entries, total, page, more=more)], links, total))


def _total(found: Sequence[Sequence[bytes | None]], shown: int, more: bool) -> int:
    """How many there are: what is shown where that is all, else what the statement counted, so far as it counts."""
    return min(int(found[0][-1] or 0), COUNTED) if more else shown


def _remarks(entries: list[bytes], total: int, page: Page, *, more: bool) -> Iterator[bytes]:
    """An OperationOutcome where the searchset would be empty (the profile wants an entry), or the total is cut."""
    if not entries and page.count and more:
        said = "Somebody who takes part is elsewhere at each of the first times: follow the next link."
        yield bundle.outcome_entry([Issue(Kind.INFORMATIONAL, said, severity="information")])
    elif not entries and page.after is None and page.count:
        said = "No appointment is available: widen the window, or name fewer participants and codes."
        yield bundle.outcome_entry([Issue(Kind.INFORMATIONAL, said, severity="information")])
    elif total >= COUNTED and page.after is None:
        said = f"There are at least {COUNTED}; no more were counted."
        yield bundle.outcome_entry([Issue(Kind.INFORMATIONAL, said, severity="information")])


@dataclass(frozen=True, slots=True)
class _Proposed:
    """A proposal, the practitioner whom the statement has found free, and its slot (UUIDs)."""

    document: dict[str, Any]
    free: bytes | None
    slot: str


def _proposed(row: Sequence[bytes | None], asked: _Asked) -> _Proposed:
    slot = to_resource(SLOT, SLOTS, row[:SLOT_COLUMNS])
    columns = tuple(row[SLOT_COLUMNS : SLOT_COLUMNS + SCHEDULE_COLUMNS])
    schedule = _schedule(columns)
    beside = [each for each in (row[-3] or b"{}").decode().strip("{}").split(",") if each not in ("", "NULL")]
    patient = asked.patients[0].get("reference", "") if len(asked.patients) == 1 else ""
    digits = tuple(each.replace("-", "")[-SUFFIX_DIGITS:] for each in dict.fromkeys(beside))
    made = appointment("proposed", [slot], {f"Schedule/{schedule['id']}": schedule}, asked.patients, asked.period)
    made["slot"] += [{"reference": f"Slot/{SLOTS.prefix}-{each}"} for each in dict.fromkeys(beside)]
    row_id = (row[0] or b"").decode()
    document = {
        "resourceType": "Appointment",
        "id": Proposal(row_id, digits, patient).id,
        **made,
        **asked.further,
    }
    return _Proposed(document, columns[_ACTOR], row_id)


@lru_cache(maxsize=1024)
def _schedule(columns: tuple[bytes | None, ...]) -> dict[str, Any]:
    """The Schedule of its row, to be read only: a pool has the same few again and again."""
    return to_resource(SCHEDULE, SCHEDULES, columns)


async def _possible(context: Context, proposed: list[_Proposed]) -> list[dict[str, Any]]:
    """Those at whose time the other practitioners of a schedule are free as well; most schedules have one."""
    asked: list[tuple[int, str, _Proposed]] = []
    for place, each in enumerate(proposed):
        listed = each.document["participant"]
        if len(listed) > 1:
            targets = [of_element(item.get("actor"), context.base) for item in listed]
            free = (each.free or b"").decode()
            asked += [(place, provider, each) for provider in provider_uuids(targets) if provider != free]
    if not asked:
        return [each.document for each in proposed]
    statement = bookable.occupied(
        [(place, provider, each.document["start"], each.document["end"], each.slot) for place, provider, each in asked],
        context.tenant,
    )
    (rows,) = await context.work.read(statement)
    gone = {int(row[0] or 0) for row in rows.all()}
    return [each.document for place, each in enumerate(proposed) if place not in gone]


def _entry(context: Context, document: dict[str, Any]) -> bytes:
    body = view.shown(context.caller, "Appointment", dumps(document), context.base)
    return bundle.entry(f"{context.base}/Appointment/{document['id']}", body)


def _asked(context: Context, inputs: Given) -> _Asked:
    """For whom it is and what else comes back. Raises 403 where a patient's token names another patient."""
    patients = [*inputs.every("patient-reference"), *map(_named, inputs.every("patient-resource"))]
    own = view.patients_of(context.caller)
    if own and any(each.get("reference") not in own for each in patients):
        raise FhirError(Kind.FORBIDDEN, "a patient's token finds times for that patient alone", "Parameters.parameter")
    if own and not patients:
        patients = [{"reference": min(own)}]
    further: dict[str, Any] = {}
    reasons = [_token(text, "reason") for text in inputs.every("reason")]
    if reasons:
        further["reasonCode"] = [{"coding": [{"system": each.system, "code": each.code}]} for each in reasons]
    if inputs.one("referral-identifier") is not None:
        further["basedOn"] = [{"type": "ServiceRequest", "identifier": inputs.one("referral-identifier")}]
    if inputs.every("insurance-reference"):
        further["supportingInformation"] = list(inputs.every("insurance-reference"))
    return _Asked(tuple(patients), {"start": inputs.one("start"), "end": inputs.one("end")}, further)


def _named(patient: dict[str, Any]) -> dict[str, Any]:
    if "id" in patient:
        return {"reference": f"Patient/{patient['id']}"}
    identifier = next((each for each in patient.get("identifier", ()) if "value" in each), None)
    return (
        {"type": "Patient", "identifier": identifier} if identifier else {"type": "Patient", "display": "new patient"}
    )


def _wanted(context: Context, inputs: Given) -> Openings:
    start, end = (_moment(inputs.one(name), name) for name in ("start", "end"))
    if start.local == end.local and start.low >= end.high:
        raise FhirError(Kind.VALUE, "start must be before end", "Parameters.parameter")
    timing = (inputs.one("timing") or {}).get("repeat", {})
    kinds = [_actors(context, inputs.every(name), kind) for name, kind in _KINDS if inputs.every(name)]
    codes = [_coded(inputs.every(name), name, params) for name, params in _CODES if inputs.every(name)]
    return Openings(
        start,
        end,
        tuple(kinds),
        tuple(codes),
        context.limits(SLOT, "s"),
        inputs.every("location-string"),
        tuple(_DAYS[day] for day in timing.get("dayOfWeek", ())),
        tuple(timing.get("timeOfDay", ())),
        context.origin,
    )


def _moment(text: str, name: str) -> codec.Interval:
    found = codec.interval(text)
    if found is None:
        raise FhirError(
            Kind.VALUE, f"{name} {text!r} is not a date and time that can be searched", "Parameters.parameter"
        )
    return found


def _actors(context: Context, references: Sequence[dict[str, Any]], kind: str) -> Condition:
    """The condition that one of these actors takes part in a schedule, by reference or by identifier."""
    param = SCHEDULE.param["actor"]
    values, identifiers = [], []
    for each in references:
        target = of_element(each, context.base)
        identifier = each.get("identifier", {})
        if "reference" not in each and identifier.get("value"):
            identifiers.append(TokenValue(identifier.get("system"), identifier["value"]))
        elif target is not None:
            values.append(ReferenceValue(target.type or kind, target.id, target.url))
    groups: list[tuple[Condition, ...]] = []
    if values:
        groups.append((Criterion(param, tuple(values)),))
    if identifiers:
        groups.append((Criterion(param, tuple(identifiers), "identifier"),))
    return groups[0][0] if len(groups) == 1 else AnyOf(tuple(groups))


def _coded(
    texts: Sequence[str], name: str, params: Sequence[str]
) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """The conditions of some codes on a schedule, and on a slot."""
    values = tuple(_token(text, name) for text in texts)

    def conditions(known: dict[str, Param]) -> tuple[Condition, ...]:
        return tuple(Criterion(known[each], values) for each in params if each in known)

    return conditions(SCHEDULE.param), conditions(SLOT.param)


def _token(text: str, name: str) -> TokenValue:
    """A code with its system. Raises 400 without the one or the other."""
    system, found, code = text.rpartition("|")
    if not (system and found and code):
        raise FhirError(Kind.VALUE, f"{name} is written system|code, not {text!r}", "Parameters.parameter")
    return TokenValue(system, code)
