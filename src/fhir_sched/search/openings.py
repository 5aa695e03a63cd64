"""The one statement of $find: free slots of a pool of schedules in a window of time, the earliest first. IHE ITI-115.

A pool is found first (by actors and codes, on the indexes that searches use), with the window that the clinic's rules
leave the caller. Of each of its schedules a few slots tell until when there is enough, and only what begins until then
is read, on (tenant, schedule, status, start, id): so millions of slots cost no more than the pool. What is compared in
the later steps are plain columns of the first, because beneath row-level security only leakproof expressions become
index conditions. A slot whose hold is over counts as free, one whose practitioner is elsewhere does not. Knows no FHIR
resource.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from fhir_sched.codec import Interval
from fhir_sched.db.fragment import Fragment
from fhir_sched.resources import RESOURCES
from fhir_sched.search.bookable import ENDED, not_elsewhere, ruled
from fhir_sched.search.branches import holds, ways
from fhir_sched.search.predicate import EMPTY, Arguments, Row
from fhir_sched.search.query import Condition
from fhir_sched.search.when import Zone

COUNTED = 500
"""No more are counted for the total."""

SLOT, SCHEDULE = RESOURCES["Slot"], RESOURCES["Schedule"]
_SLOTS, _SCHEDULES = SLOT.sources[0], SCHEDULE.sources[0]
SLOT_COLUMNS, SCHEDULE_COLUMNS = len(_SLOTS.columns), len(_SCHEDULES.columns)
_SHOWN = ", ".join([*_SLOTS.select_list, *(re.sub(r"\ba\.", "c.", each) for each in _SCHEDULES.select_list)])


@dataclass(frozen=True, slots=True)
class Openings:
    """What is wanted: `start` of the window from its low end, `end` up to its high end.

    `kinds` are conditions on schedules, one for each kind of actor: the slot's own schedule fulfils it, or that of
    another free slot around its time. `codes` are pairs of conditions on the schedule and on the slot, of which one has
    to hold. `limits` are what the caller may see of slots, `names` parts of the displayed name of an actor, `days`
    (1 Monday) and `times` the local day and time. `caller` (portal, staff, hl7) is who is bound by the rules about when
    to book, "" nobody. `after` is the last slot seen (start as text, UUID).
    """

    start: Interval
    end: Interval
    kinds: tuple[Condition, ...] = ()
    codes: tuple[tuple[tuple[Condition, ...], tuple[Condition, ...]], ...] = ()
    limits: tuple[Condition, ...] = ()
    names: tuple[str, ...] = ()
    days: tuple[int, ...] = ()
    times: tuple[str, ...] = ()
    caller: str = ""
    after: tuple[str, str] | None = None
    count: int = 20


def statement(wanted: Openings, tenant: str) -> Fragment:
    """`count` + 1 rows: the slot's columns, its schedule's, the UUIDs of the slots beside it (an array), its start as
    text, and how many slots are free (null but on the first page), whoever may be elsewhere then.
    """
    args = Arguments(tenant)
    others = "".join(_kind(n, kind, args) for n, kind in enumerate(wanted.kinds) if n)
    rules = f"{ruled(args.add(wanted.caller))}, " if wanted.caller else ""
    pool = _pool(wanted, args)
    fits = _fits(wanted, args)
    most = wanted.count + 1
    order = "order by start_at, id"
    position = ""
    if wanted.after is not None:
        start, row_id = args.add(wanted.after[0]), args.add(wanted.after[1])
        position = f" and (s.start_at, s.id) > ({start}::timestamptz, {row_id}::uuid)"
    kinds = range(1, len(wanted.kinds))
    further = ", ".join(f"case when not p.kind_{n} then beside_{n}.id end" for n in kinds)
    beside = "".join(_beside(n) for n in kinds)
    columns = f"s.id, s.start_at, array[{further}]::uuid[] as further"
    free = f"s.fhir_status = 'free' and {fits}"
    open_to = f"{free}{position} and {not_elsewhere(beside=bool(kinds))}"
    restricted = bool(wanted.kinds or wanted.codes or wanted.names)
    source = (
        _of_each(columns, open_to, beside, order, most)
        if restricted
        else _of_all(columns, f"{free}{position}", order, most)
    )
    counted = "null::bigint"
    if wanted.after is None:
        some = f"select from pool p join slots s on s.schedule_id = p.id{beside} where {free} limit {COUNTED + 1}"
        counted = f"(select count(*) from ({some}) n)"
    ended = f"{fits}{position} and {not_elsewhere(beside=bool(kinds))}"
    text = f"""
with {others}{rules}pool as materialized (
{pool}
), candidates as materialized (
    (
        {source}
    )
    union
    (
        {_over(columns, ended, beside, f"{order} limit {most}")}
    )
    {order}
    limit {most}
)
select {_SHOWN}, f.further, f.start_at::text, {counted}
from candidates f
join slots a on a.tenant_id = $1::uuid and a.id = f.id
join schedules c on c.tenant_id = $1::uuid and c.id = a.schedule_id
order by f.start_at, f.id"""
    return Fragment(text, tuple(args.values), steady=True)


def _pool(wanted: Openings, args: Arguments) -> str:
    """The schedules that may have what is wanted, with their own window and what of it they fulfil themselves."""
    row = Row(SCHEDULE, _SCHEDULES, "c", Zone())
    low, high = _bound(wanted.start, args, low=True), _bound(wanted.end, args, low=False)
    last, rules = "'infinity'::timestamptz", ""
    if wanted.caller:
        low = f"greatest({low}, r.earliest)"
        last = "coalesce(r.latest, 'infinity')"
        rules = """
    left join ruled own on own.schedule_id = c.id
    join ruled r on r.schedule_id is not distinct from own.schedule_id"""
    if wanted.after is not None:
        low = f"greatest({low}, {args.add(wanted.after[0])}::timestamptz)"
    columns = ["c.id", "c.zone", "c.actor_id", "c.actor_type", f"{low} as low", f"{high} as high", f"{last} as last"]
    columns.append(f"{low} - interval '1 day' as day_before")
    where = ["c.tenant_id = $1::uuid", "c.is_active"]
    if wanted.kinds:
        where.append(_among(wanted.kinds[0], args))
        columns += [
            f"coalesce({_holds(kind, row, args)}, false) as kind_{n}" for n, kind in enumerate(wanted.kinds) if n
        ]
    for n, (of_schedule, of_slot) in enumerate(wanted.codes):
        own = _any(of_schedule, row, args)
        columns.append(f"coalesce({own}, false) as code_{n}")
        if not wanted.kinds:
            where.append(_somewhere(wanted, of_schedule, of_slot, args))
    if wanted.names:
        listed = " or ".join(f"x ->> 'display' ilike {args.add(_part(name))}" for name in wanted.names)
        actors = "case when jsonb_typeof(c.fhir -> 'actor') = 'array' then c.fhir -> 'actor' end"
        where.append(f"exists (select from jsonb_array_elements({actors}) x where {listed})")
    return f"    select {', '.join(columns)}\n    from schedules c{rules}\n    where {' and '.join(where)}"


def _among(kind: Condition, args: Arguments) -> str:
    """Whether a schedule is of one of these actors; they are looked up first, each way on its own index."""
    before = len(args.values)
    found = [
        f"select k.id from schedules k where k.tenant_id = $1::uuid and {way}"
        for way in ways(kind, Row(SCHEDULE, _SCHEDULES, "k", Zone()), args)
    ]
    if not found:
        del args.values[before:]  # a statement must use every argument it is given
        return EMPTY
    return f"c.id = any(array({' union '.join(found)}))"


def _somewhere(
    wanted: Openings, of_schedule: Sequence[Condition], of_slot: Sequence[Condition], args: Arguments
) -> str:
    """Whether a schedule fulfils a code, or some slot of it in the window does."""
    parts = [part for part in (_any(of_schedule, Row(SCHEDULE, _SCHEDULES, "c", Zone()), args),) if part != EMPTY]
    selects = []
    for condition in of_slot:
        for way in ways(condition, Row(SLOT, _SLOTS, "o", Zone()), args):
            first = _bound(wanted.start, args, low=True, zone="")
            last = _bound(wanted.end, args, low=False, zone="")
            window = f"o.tenant_id = $1::uuid and o.start_at >= {first} and o.start_at < {last}"
            selects.append(f"select o.schedule_id from slots o where {window} and {way}")
    if selects:
        parts.append(f"c.id = any(array({' union '.join(selects)}))")
    return f"({' or '.join(parts) or EMPTY})"


def _fits(wanted: Openings, args: Arguments) -> str:
    """What must hold for a slot `s` of a schedule `p` of the pool, but for its status."""
    row = Row(SLOT, _SLOTS, "s", Zone())
    parts = [
        "s.tenant_id = $1::uuid",
        "s.schedule_id = p.id",
        "s.start_at >= p.low",
        "s.start_at < p.high",
        "s.start_at <= p.last",
        "s.end_at <= p.high",
    ]
    parts += [f"(p.code_{n} or {_any(of_slot, row, args)})" for n, (_, of_slot) in enumerate(wanted.codes)]
    parts += [_holds(limit, row, args) for limit in wanted.limits]
    if wanted.days:
        days = args.add("{" + ",".join(map(str, wanted.days)) + "}")
        parts.append(f"extract(isodow from timezone(p.zone, s.start_at))::integer = any ({days}::integer[])")
    if wanted.times:
        times = args.add("{" + ",".join(wanted.times) + "}")
        parts.append(f"timezone(p.zone, s.start_at)::time = any ({times}::time[])")
    parts += [f"(p.kind_{n} or beside_{n}.id is not null)" for n in range(1, len(wanted.kinds))]
    return " and ".join(parts)


def _of_each(columns: str, where: str, beside: str, order: str, most: int) -> str:
    """The first slots of each schedule of the pool, merged.

    The first of each, or the first few where the pool is small, tell until when there are `most`; what else there is
    until then is read after them.
    """
    return f"""with first as materialized (
            select p.*, r.id as slot_id, r.start_at, r.further
            from pool p
            cross join lateral (
                select {columns} from slots s{beside}
                where {where}
                {order}
                limit (select ({most} + count(*) - 1) / greatest(count(*), 1) from pool)
            ) r
        ), enough as materialized (
            select coalesce((select f.start_at from first f order by f.start_at offset {most - 1} limit 1), 'infinity')
                as until
        )
        select f.slot_id as id, f.start_at, f.further from first f
        union all
        select r.*
        from (select distinct on (f.id) f.* from first f order by f.id, f.start_at desc, f.slot_id desc) p
        cross join lateral (
            select {columns} from slots s{beside}
            where (s.start_at, s.id) > (p.start_at, p.slot_id) and s.start_at <= (select e.until from enough e)
              and {where}
            {order}
            limit {most}
        ) r
        where p.start_at <= (select e.until from enough e)
        {order}
        limit {most}"""


def _of_all(columns: str, where: str, order: str, most: int) -> str:
    """The first slots of the tenant: where every schedule is in the pool, the slots are walked in their own order.

    Whether somebody is elsewhere is asked in a second step, so that the first is planned as a walk along the index.
    """
    return f"""select s.id, s.start_at, s.further
        from (
            select {columns}, s.end_at, p.actor_id, p.actor_type
            from slots s
            join pool p on p.id = s.schedule_id
            where s.start_at >= (select min(low) from pool) and {where}
            {order}
            offset 0
        ) s
        where {not_elsewhere("s")}
        limit {most}"""


def _over(columns: str, where: str, beside: str, order: str) -> str:
    """The slots of holds that are over."""
    return f"""select {columns} from appointments h
            cross join lateral unnest(h.slot_id || h.extra_slot_ids) as held (slot_id)
            join slots s on s.tenant_id = $1::uuid and s.id = held.slot_id
            join pool p on p.id = s.schedule_id{beside}
            where {ENDED} and {where} {order}"""


def _kind(number: int, kind: Condition, args: Arguments) -> str:
    """The schedules of a further kind of actor."""
    row = Row(SCHEDULE, _SCHEDULES, "c", Zone())
    found = f"select c.id from schedules c where c.tenant_id = $1::uuid and c.is_active and {_holds(kind, row, args)}"
    return f"kind_{number} as materialized ({found}), "


def _beside(number: int) -> str:
    """The free slot of a schedule of another kind around the time of `s`."""
    return f"""
            left join lateral (
                select b.id
                from kind_{number} k
                cross join lateral (
                    select b.id, b.start_at
                    from slots b
                    where b.tenant_id = $1::uuid and b.schedule_id = k.id and b.fhir_status = 'free'
                      and b.start_at > p.day_before and b.start_at <= s.start_at and b.end_at >= s.end_at
                    order by b.start_at desc
                    limit 1
                ) b
                order by b.start_at desc, b.id
                limit 1
            ) beside_{number} on not p.kind_{number}"""


def _bound(moment: Interval, args: Arguments, *, low: bool, zone: str = "c.zone") -> str:
    """One end of the window, a moment or the edge of a longer time.

    A time without offset is on the clock of each schedule or, without `zone`, with half a day to spare.
    """
    exact = moment.high - moment.low <= timedelta(seconds=1)
    at = moment.low if low or exact else moment.high
    text = at.isoformat(sep=" ")
    if not moment.local:
        return f"{args.add(text)}::timestamptz"
    if zone:
        return f"timezone({zone}, {args.add(text)}::timestamp)"
    spare = "-" if low else "+"
    return f"({args.add(text + '+00')}::timestamptz {spare} interval '14 hours')"


def _holds(condition: Condition, row: Row, args: Arguments) -> str:
    before = len(args.values)
    found = holds(condition, row, args)
    if found == EMPTY:
        del args.values[before:]  # a statement must use every argument it is given
    return found


def _any(conditions: Sequence[Condition], row: Row, args: Arguments) -> str:
    parts = [_holds(each, row, args) for each in conditions]
    found = [part for part in parts if part != EMPTY]
    return f"({' or '.join(found)})" if found else EMPTY


def _part(name: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", name)
    return f"%{escaped}%"
