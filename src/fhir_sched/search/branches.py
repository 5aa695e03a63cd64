"""Conditions -> the `select`s that together find the matches, by `from` and `where`. Pure: no connection, no I/O.

One branch for each source table that can match at all, and two where a condition may be met by a column or by the side
table. Here are also chains, `_has` and the zone of a row; R4 3.1.1.4. Knows nothing of order and pages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fhir_sched.binding import References
from fhir_sched.definition import Resource, Source
from fhir_sched.search.clause import clause, impossible
from fhir_sched.search.predicate import ALL, EMPTY, Arguments, Either, Row, all_of
from fhir_sched.search.query import AnyOf, Chain, Condition, Criterion, Has, ReferenceValue
from fhir_sched.search.side import listed
from fhir_sched.search.when import Zone


@dataclass(frozen=True, slots=True)
class Branch:
    """One `select` of a union: its source, `from` and `where`."""

    source: Source
    position: int
    tables: str
    where: tuple[str, ...]


def selects(
    resource: Resource, source: Source, conditions: Sequence[Condition], args: Arguments
) -> list[tuple[str, str]]:
    """`from` and `where` of the selects that together find the matches in one source, whose row is called `a`."""
    branches = branches_of(resource, conditions, "a", args, (source.prefix,))
    return [(branch.tables, all_of(branch.where)) for branch in branches]


def branches_of(
    resource: Resource,
    conditions: Sequence[Condition],
    alias: str,
    args: Arguments,
    prefixes: Collection[str] | None = None,
) -> list[Branch]:
    """The selects that together find all matches, of the sources with these prefixes (None: of all)."""
    branches = []
    for position, source in enumerate(resource.sources):
        if prefixes is None or source.prefix in prefixes:
            before = len(args.values)
            found = _source_branches(resource, source, position, conditions, alias, args)
            if not found:
                del args.values[before:]  # a statement must use every argument it is given
            branches += found
    return branches


def _source_branches(
    resource: Resource, source: Source, position: int, conditions: Sequence[Condition], alias: str, args: Arguments
) -> list[Branch]:
    if any(impossible(condition, position) for condition in conditions):
        return []
    zone, join = _zone(source, conditions, alias, position, args)
    row = Row(resource, source, alias, zone)
    found = [_condition(condition, row, args) for condition in conditions]
    if any(each.joined() == EMPTY for each in found):
        return []
    found = [each for each in found if each.joined() != ALL]
    driver = next((each for each in found if EMPTY not in (each.column, each.side)), None)
    fixed = [f"{alias}.tenant_id = $1::uuid", *(each.joined() for each in found if each is not driver)]
    tables = f"{source.table} {alias}{join}"
    if driver is None:
        return [Branch(source, position, tables, tuple(fixed))]
    return [
        Branch(source, position, tables, (*fixed, driver.column)),
        Branch(source, position, tables, (*fixed, driver.side, f"({driver.column}) is not true")),
    ]


def _zone(
    source: Source, conditions: Sequence[Condition], alias: str, position: int, args: Arguments
) -> tuple[Zone, str]:
    """How the statement knows a row's zone: not at all, by its own column, by the one schedule wanted, or by a join."""
    if not any(_is_local(condition, position) for condition in conditions):
        return Zone(), ""
    if source.zone_from == "self":
        return Zone(f"{alias}.zone"), ""
    schedule = _only_schedule(conditions)
    if schedule is not None:
        # coalesce inside: around the subselect it would count as leaky, and the range not as an index condition
        where = f"tenant_id = $1::uuid and id = {args.add(schedule)}::uuid"
        return Zone(f"(select coalesce(max(zone), 'UTC') from schedules where {where})", pinned=True), ""
    name = f"{alias}_schedule"
    matching = f"{name}.tenant_id = {alias}.tenant_id and {name}.id = {alias}.{source.zone_from}"
    join = f"\nleft join schedules {name} on {matching}"
    return Zone(f"coalesce({name}.zone, 'UTC')"), join


def _is_local(condition: Condition, position: int) -> bool:
    if not isinstance(condition, Criterion):
        return False
    if not getattr(condition.param.bindings[position], "zone", True):
        return False
    return any(getattr(value, "local", False) for value in condition.values)


def _only_schedule(conditions: Sequence[Condition]) -> str | None:
    """The UUID of the schedule, when the search is of one schedule's slots."""
    for condition in conditions:
        if (
            isinstance(condition, Criterion)
            and condition.param.expression == "Slot.schedule"
            and not condition.modifier
        ):
            values = [value for value in condition.values if isinstance(value, ReferenceValue)]
            if len(values) == 1 and values[0].id.startswith("sch-") and len(values[0].id) == 40:
                return values[0].id.removeprefix("sch-")
    return None


def holds(condition: Condition, row: Row, args: Arguments) -> str:
    """The predicate of a condition on one row, for a statement that is put together elsewhere."""
    return _condition(condition, row, args).joined()


def ways(condition: Condition, row: Row, args: Arguments) -> tuple[str, ...]:
    """The predicates of which one must hold, each of which has an index of its own."""
    found = _condition(condition, row, args)
    return tuple(part for part in (found.column, found.side) if part != EMPTY)


def _condition(condition: Condition, row: Row, args: Arguments) -> Either:
    match condition:
        case Criterion():
            return clause(condition, row, args)
        case Chain():
            return _chain(condition, row, args)
        case Has():
            return _has(condition, row, args)
        case AnyOf(groups):
            return Either(_any_group(groups, row, args))


def _any_group(groups: Sequence[tuple[Condition, ...]], row: Row, args: Arguments) -> str:
    found = []
    for group in groups:
        before = len(args.values)
        parts = [_condition(condition, row, args).joined() for condition in group]
        if EMPTY in parts:
            del args.values[before:]
        else:
            found.append(f"({' and '.join(parts) or ALL})")
    return f"({' or '.join(found)})" if found else EMPTY


def _ids(
    resource: Resource, conditions: Sequence[Condition], expressions: dict[str, str], args: Arguments, depth: str
) -> str:
    """A subselect of one expression over all rows that fulfil conditions; `expressions` by prefix of the source."""
    selects = [
        f"select {expressions[branch.source.prefix].format(row=depth)} from {branch.tables} "
        f"where {' and '.join(branch.where)}"
        for branch in branches_of(resource, conditions, depth, args, expressions)
    ]
    return " union all ".join(selects)


def _chain(chain: Chain, row: Row, args: Arguments) -> Either:
    binding = chain.param.bindings[row.position]
    if not isinstance(binding, References) or not binding.prefix:
        return Either(EMPTY)
    inner = f"{row.alias}x"
    wanted = (chain.criterion, *chain.limits)
    ids = _ids(chain.target, wanted, {binding.prefix: "{row}.id"}, args, inner)
    column = f"{row.alias}.{binding.columns[0].column} in ({ids})" if ids else EMPTY
    if not binding.entry:
        return Either(column)
    texts = _ids(chain.target, wanted, {binding.prefix: f"'{binding.prefix}-' || {{row}}.id::text"}, args, inner)
    return Either(column, listed(f"{binding.entry}+", row, args, f" and t.value in ({texts})") if texts else EMPTY)


def _has(has: Has, row: Row, args: Arguments) -> Either:
    first, others = {}, {}
    for source, binding in zip(has.resource.sources, has.param.bindings, strict=True):
        if isinstance(binding, References) and binding.prefix == row.source.prefix:
            first[source.prefix] = f"{{row}}.{binding.columns[0].column}"
            if binding.others:
                others[source.prefix] = f"unnest({{row}}.{binding.others})"
    inner = f"{row.alias}x"
    selects = [_ids(has.resource, (has.criterion, *has.limits), each, args, inner) for each in (first, others) if each]
    ids = " union all ".join(filter(None, selects))
    return Either(f"{row.alias}.id in ({ids})" if ids else EMPTY)
