"""Query -> one SQL statement with its arguments. Pure: no connection, no I/O. R4 3.1.1.

A search is one `select`, or a `union all` of a few (`branches`), each sorted and cut by its own index.
Identifiers come only from a Resource; values only travel as bound arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import DateParam, ReferenceParam, Resource, Source, TokenParam
from fhir_sched.record import record
from fhir_sched.search.branches import branches_of
from fhir_sched.search.keyset import Part, order_by, sort_keys, where
from fhir_sched.search.predicate import Arguments, all_of
from fhir_sched.search.query import Chain, Condition, Criterion, Has, Position, Query, ReferenceValue, Sort

_QUICK_COUNT = 200
ESTIMATE_LIMIT = 10_000
"""An estimated total counts no further than this."""


@record
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


def count(query: Query, tenant: str, limit: int | None) -> Fragment | None:
    """The statement that counts the matches, no further than `limit` when there is one; None when nothing can match."""
    args = Arguments(tenant)
    branches = [part.branch for part in _parts(query, args)]
    if not branches:
        return None
    most = "" if limit is None else f"\nlimit {limit}"
    selects = "\nunion all\n".join(
        f"(select 1\nfrom {each.tables}\nwhere {all_of(each.where)}{most})" for each in branches
    )
    return Fragment(
        f"select count(*)\nfrom (select * from (\n{selects}\n) each_branch{most}) counted", tuple(args.values)
    )


def _parts(query: Query, args: Arguments) -> list[Part]:
    parts: list[Part] = []
    before = 0
    for each in (query, *query.also):
        branches = branches_of(each.resource, each.conditions, "a", args)
        parts += [Part(each, branch, before + branch.position) for branch in branches]
        before += len(each.resource.sources)
    return parts


def _single(part: Part, sources: tuple[tuple[Resource, Source], ...], args: Arguments) -> Plan:
    keys, branch, query = sort_keys(part), part.branch, part.query
    shown = list(branch.source.select_list)
    places = []
    for expression, _, _ in keys:
        if expression not in shown:
            shown.append(expression)
        places.append(shown.index(expression))
    text = (
        f"select {', '.join(shown)}\nfrom {branch.tables}\nwhere {where(part, keys, args)}\n"
        f"order by {order_by([key[0] for key in keys], keys, query.backward)}\nlimit {query.count + 1}"
    )
    return Plan(Fragment(text, tuple(args.values), _steady(query)), sources, part.place, tuple(places), _slow(query))


def _union(query: Query, parts: Sequence[Part], sources: tuple[tuple[Resource, Source], ...], args: Arguments) -> Plan:
    width = max(len(part.branch.source.columns) for part in parts)
    selects = []
    for part in parts:
        keys = sort_keys(part)
        columns = [f"{expression}::text" for expression in part.branch.source.select_list]
        columns += ["null"] * (width - len(columns))
        columns += [f"{key[0]} as k{index}" for index, key in enumerate(keys)]
        selects.append(
            f"(select {part.place} as source_place, {', '.join(columns)}\nfrom {part.branch.tables}\n"
            f"where {where(part, keys, args)}\n"
            f"order by {order_by([key[0] for key in keys], keys, query.backward)}\nlimit {query.count + 1})"
        )
    keys = [*sort_keys(parts[0]), ("source_place", "integer", query.sort[0].descending)]
    names = [*(f"k{index}" for index in range(len(keys) - 1)), "source_place"]
    joined = "\nunion all\n".join(selects)
    order = order_by(names, keys, query.backward)
    text = f"select *\nfrom (\n{joined}\n) each_source\norder by {order}\nlimit {query.count + 1}"
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
