"""Query -> one SQL statement with its arguments. Pure: no connection, no I/O. R4 3.1.1.

A search is one `select`, or a `union all` of a few, each sorted and cut by its own index: one branch for each source
table that can match at all, and two where a condition may be met by a column or by the side table.
Identifiers come only from a Resource; values only travel as bound arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import (
    BooleanColumn,
    CodeColumn,
    DateParam,
    Fixed,
    IdColumn,
    InstantColumn,
    ReferenceParam,
    References,
    Resource,
    Source,
    TokenParam,
)
from fhir_sched.search.clause import ALL, EMPTY, Arguments, Either, Row, clause, impossible, side
from fhir_sched.search.query import AnyOf, Chain, Condition, Criterion, Has, Position, Query, ReferenceValue, Sort
from fhir_sched.search.when import Zone

_QUICK_COUNT = 200
ESTIMATE_LIMIT = 10_000
"""An estimated total counts no further than this."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement and how to read its rows.

    `sources` are those of the resources, in order; `only` is the place of the one that all rows come from, None when
    the first column says it. `keys` are the places of the sort keys, the id last. A plan without statement finds
    nothing. `slow` ones must not hold up others on a shared connection.
    """

    fragment: Fragment | None
    sources: tuple[tuple[Resource, Source], ...]
    only: int | None = None
    keys: tuple[int, ...] = ()
    slow: bool = False

    def read(self, row: Sequence[bytes | None]) -> tuple[Resource, Source, Sequence[bytes | None]]:
        """The resource and source of a row, and its columns in that source's order."""
        first = 0 if self.only is not None else 1
        resource, source = self.sources[self.only if self.only is not None else int(row[0] or b"0")]
        return resource, source, row[first : first + len(source.columns)]

    def position(self, row: Sequence[bytes | None], *, backward: bool) -> Position:
        """The place behind (or in front of) a row."""
        keys = tuple((row[index] or b"").decode() for index in self.keys)
        return Position(keys, self.only if self.only is not None else int(row[0] or b"0"), backward)


@dataclass(frozen=True, slots=True)
class _Branch:
    """One `select` of a union: its source, `from` and `where`."""

    source: Source
    position: int
    tables: str
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """One branch of a page: the query it comes from and the place of its source among all sources of the search."""

    query: Query
    branch: _Branch
    place: int


def search(query: Query, tenant: str) -> Plan:
    """The statement that fetches a page: `count` rows and one more, which tells that there is another page."""
    args = Arguments(tenant)
    parts = _parts(query, args)
    sources = tuple((each.resource, source) for each in (query, *query.also) for source in each.resource.sources)
    if not parts:
        return Plan(None, sources)
    if len(parts) == 1:
        return _single(parts[0], sources, args)
    return _union(query, parts, sources, args)


def _parts(query: Query, args: Arguments) -> list[_Part]:
    parts: list[_Part] = []
    before = 0
    for each in (query, *query.also):
        branches = _branches(each.resource, each.conditions, "a", args)
        parts += [_Part(each, branch, before + branch.position) for branch in branches]
        before += len(each.resource.sources)
    return parts


def count(query: Query, tenant: str, limit: int | None) -> Fragment | None:
    """The statement that counts the matches, no further than `limit` when there is one; None when nothing can match."""
    args = Arguments(tenant)
    branches = [part.branch for part in _parts(query, args)]
    if not branches:
        return None
    most = "" if limit is None else f"\nlimit {limit}"
    selects = "\nunion all\n".join(
        f"(select 1\nfrom {each.tables}\nwhere {_and(each.where)}{most})" for each in branches
    )
    return Fragment(
        f"select count(*)\nfrom (select * from (\n{selects}\n) each_branch{most}) counted", tuple(args.values)
    )


def selects(
    resource: Resource, source: Source, conditions: Sequence[Condition], args: Arguments
) -> list[tuple[str, str]]:
    """`from` and `where` of the selects that together find the matches in one source, whose row is called `a`."""
    branches = _branches(resource, conditions, "a", args, (source.prefix,))
    return [(branch.tables, _and(branch.where)) for branch in branches]


def _and(predicates: Sequence[str]) -> str:
    return "\n  and ".join(predicates)


# Branches


def _branches(
    resource: Resource,
    conditions: Sequence[Condition],
    alias: str,
    args: Arguments,
    prefixes: Collection[str] | None = None,
) -> list[_Branch]:
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
) -> list[_Branch]:
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
        return [_Branch(source, position, tables, tuple(fixed))]
    return [
        _Branch(source, position, tables, (*fixed, driver.column)),
        _Branch(source, position, tables, (*fixed, driver.side, f"({driver.column}) is not true")),
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
        for branch in _branches(resource, conditions, depth, args, expressions)
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
    return Either(column, side(f"{binding.entry}+", row, args, f" and t.value in ({texts})") if texts else EMPTY)


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


# Order and page


def _key(sort: Sort, source: Source, position: int, alias: str) -> tuple[str, str]:
    """The expression of a sort key on a source, and its SQL type."""
    match sort.param.bindings[position]:
        case InstantColumn(column):
            return f"{alias}.{column}", "timestamptz"
        case IdColumn():
            return f"{alias}.id", "uuid"
        case CodeColumn(column):
            return f"{alias}.{column}", "text"
        case Fixed(code):
            return f"'{code}'::text", "text"
        case BooleanColumn(column):
            return f"{alias}.{column}", "boolean"
        case References(columns):
            return f"{alias}.{columns[0].column}", "uuid"
    raise TypeError(f"{source.table} has no order by {sort.param.name}")


def _keys(part: _Part) -> list[tuple[str, str, bool]]:
    """Sort keys with type and direction, the id last; the id follows the first key's direction."""
    branch, sort = part.branch, part.query.sort
    keys = [(*_key(each, branch.source, branch.position, "a"), each.descending) for each in sort]
    return [*keys, ("a.id", "uuid", sort[0].descending)]


def _order(names: Sequence[str], keys: Sequence[tuple[str, str, bool]], backward: bool) -> str:
    return ", ".join(f"{name}{' desc' if key[2] != backward else ''}" for name, key in zip(names, keys, strict=True))


def _after(part: _Part, keys: Sequence[tuple[str, str, bool]], args: Arguments) -> str | None:
    """The predicate `behind the position`: a row comparison where all keys run the same way."""
    place = part.query.position
    if place is None:
        return None
    bound = [f"{args.add(text)}::{kind}" for text, (_, kind, _) in zip(place.keys, keys, strict=True)]
    down = [key[2] != place.backward for key in keys]
    reach = "=" if (part.place > place.source) != down[-1] and part.place != place.source else ""
    if len(set(down)) == 1:
        left, right = ", ".join(key[0] for key in keys), ", ".join(bound)
        return f"({left}) {'<' if down[0] else '>'}{reach} ({right})"
    return _mixed([key[0] for key in keys], bound, down, reach)


def _mixed(names: Sequence[str], bound: Sequence[str], down: Sequence[bool], reach: str) -> str:
    """The same for keys of both directions: equal so far and then behind, key by key."""
    parts = []
    for index, name in enumerate(names):
        equal = [f"{names[i]} = {bound[i]}" for i in range(index)]
        last = reach if index == len(names) - 1 else ""
        parts.append(" and ".join([*equal, f"{name} {'<' if down[index] else '>'}{last} {bound[index]}"]))
    return f"({' or '.join(f'({part})' for part in parts)})"


def _where(part: _Part, keys: Sequence[tuple[str, str, bool]], args: Arguments) -> str:
    after = _after(part, keys, args)
    return _and([*part.branch.where, after] if after else part.branch.where)


def _backward(position: Position | None) -> bool:
    return position is not None and position.backward


def _single(part: _Part, sources: tuple[tuple[Resource, Source], ...], args: Arguments) -> Plan:
    keys, branch, query = _keys(part), part.branch, part.query
    shown = list(branch.source.select_list)
    places = []
    for expression, _, _ in keys:
        if expression not in shown:
            shown.append(expression)
        places.append(shown.index(expression))
    text = (
        f"select {', '.join(shown)}\nfrom {branch.tables}\nwhere {_where(part, keys, args)}\n"
        f"order by {_order([key[0] for key in keys], keys, _backward(query.position))}\nlimit {query.count + 1}"
    )
    return Plan(Fragment(text, tuple(args.values), _steady(query)), sources, part.place, tuple(places), _slow(query))


def _union(query: Query, parts: Sequence[_Part], sources: tuple[tuple[Resource, Source], ...], args: Arguments) -> Plan:
    width = max(len(part.branch.source.columns) for part in parts)
    backward = _backward(query.position)
    selects = []
    for part in parts:
        keys = _keys(part)
        columns = [f"{expression}::text" for expression in part.branch.source.select_list]
        columns += ["null"] * (width - len(columns))
        columns += [f"{key[0]} as k{index}" for index, key in enumerate(keys)]
        selects.append(
            f"(select {part.place} as source_place, {', '.join(columns)}\nfrom {part.branch.tables}\n"
            f"where {_where(part, keys, args)}\n"
            f"order by {_order([key[0] for key in keys], keys, backward)}\nlimit {query.count + 1})"
        )
    keys = [*_keys(parts[0]), ("source_place", "integer", query.sort[0].descending)]
    names = [*(f"k{index}" for index in range(len(keys) - 1)), "source_place"]
    joined = "\nunion all\n".join(selects)
    text = (
        f"select *\nfrom (\n{joined}\n) each_source\norder by {_order(names, keys, backward)}\nlimit {query.count + 1}"
    )
    places = tuple(range(1 + width, 1 + width + len(keys) - 1))
    return Plan(Fragment(text, tuple(args.values), _steady(query)), sources, None, places, _slow(query))


def _slow(query: Query) -> bool:
    """Whether a page may take long: conditions that no index narrows, many values, many rows."""
    return query.count > _QUICK_COUNT or any(
        isinstance(each, Has)
        or (isinstance(each, Criterion) and (each.modifier in ("not", "missing") or len(each.values) > 20))
        for each in query.conditions
    )


def _steady(query: Query) -> bool:
    """Whether one plan is good for all values: each condition is an equality, or a range of what the order is by.

    What many values, or a range beside the order, find depends on the values: the planner has to see them.
    """
    return all(_is_steady(condition, query.sort[0]) for each in (query, *query.also) for condition in each.conditions)


def _is_steady(condition: Condition, first: Sort) -> bool:
    match condition:
        case Criterion(param=DateParam(), modifier=""):
            return condition.param is first.param
        case Criterion(param=TokenParam(kind="code" | "id"), modifier="", values=(_,)):
            return True
        case Criterion(param=ReferenceParam(), modifier="", values=(ReferenceValue(type=kind),)):
            return kind != ""
        case Chain(criterion=Criterion(param=ReferenceParam()), limits=()):
            return _is_steady(condition.criterion, first)
    return False


def by_ids(source: Source, ids: Sequence[str], tenant: str) -> Fragment:
    """The statement that reads rows by their ids (for includes)."""
    args = Arguments(tenant)
    chosen = args.one_of("a.id", ids, "uuid")
    text = (
        f"select {', '.join(source.select_list)}\nfrom {source.table} a\n"
        f"where a.tenant_id = $1::uuid\n  and {chosen}\norder by a.id"
    )
    return Fragment(text, tuple(args.values), steady=True)
