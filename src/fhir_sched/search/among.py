"""Which of some versions of resources fulfil conditions -> one SQL statement. Pure: no connection, no I/O.

The search is that of every request: only its table and the side table are replaced by the versions in question, which
are the rows themselves or entries of `history`. So an event is judged by what its resource was then, deleted or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import Resource, Source
from fhir_sched.search import branches
from fhir_sched.search.predicate import Arguments
from fhir_sched.search.query import Condition


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a row, by its id (a UUID)."""

    row_id: str
    version: int


def among(
    resource: Resource, source: Source, conditions: Sequence[Condition], versions: Sequence[Version], tenant: str
) -> Fragment | None:
    """The ids of those versions that fulfil all conditions; each id may be asked for once. None when none can."""
    args = Arguments(tenant)
    spread = rows(source, versions, args)
    ids = args.add(_array(each.row_id for each in versions))
    found = branches.selects(resource, source, conditions, args)
    if not found:
        return None
    ctes = (
        f"with {source.table} as materialized (\n{spread}\n), search_tokens as not materialized (\n"
        "select t.tenant_id, t.parameter, t.system, t.value, t.id, t.kind\nfrom public.search_tokens t\n"
        f"where not (t.kind = '{source.kind}' and t.id = any({ids}::uuid[]))\nunion all\n"
        "select a.tenant_id, e ->> 0, coalesce(e ->> 1, ''), (e ->> 2) collate \"C\", a.id, "
        f"'{source.kind}'::\"char\"\n"
        f"from {source.table} a\ncross join lateral jsonb_array_elements(a.fhir_tokens) e\nwhere e ->> 2 is not null\n)"
    )
    selects = "\nunion\n".join(f"select a.id\nfrom {tables}\nwhere {where}" for tables, where in found)
    return Fragment(f"{ctes}\n{selects}", tuple(args.values))


def shown(source: Source, versions: Sequence[Version], tenant: str) -> Fragment:
    """The versions themselves: `source.columns` of each that there is, as text."""
    args = Arguments(tenant)
    columns = ", ".join(f"{expression}::text" for expression in source.select_list)
    return Fragment(f"select {columns}\nfrom (\n{rows(source, versions, args)}\n) a", tuple(args.values))


def rows(source: Source, versions: Sequence[Version], args: Arguments) -> str:
    """A select of the versions as rows of the source's table."""
    ids = args.add(_array(each.row_id for each in versions))
    numbers = args.add(_array(str(each.version) for each in versions))
    table = args.add(source.table)
    return (
        "select r.*\n"
        f"from unnest({ids}::uuid[], {numbers}::integer[]) wanted (id, version)\n"
        "cross join lateral (\n"
        f"select to_jsonb(c) as row\nfrom public.{source.table} c\n"
        "where c.tenant_id = $1::uuid and c.id = wanted.id and c.version = wanted.version\nunion all\n"
        "select h.row\nfrom public.history h\n"
        f"where h.tenant_id = $1::uuid and h.table_name = {table} and h.id = wanted.id and h.version = wanted.version\n"
        "and not h.deleted\n) there\n"
        f"cross join lateral jsonb_populate_record(null::public.{source.table}, there.row) r"
    )


def _array(values: Iterable[str]) -> str:
    """An array literal of UUIDs or numbers, which need no quotes."""
    return "{" + ",".join(values) + "}"
