"""Which of some versions of resources fulfil conditions -> SQL statements. Pure: no connection, no I/O.

The search is that of every request: only its table and the side table are replaced by the versions in question, which
are the rows themselves or entries of `history`. So an event is judged by what its resource was then, deleted or not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_sched.codec import text_array
from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import Resource, Source
from fhir_sched.search import branches
from fhir_sched.search.predicate import Arguments
from fhir_sched.search.query import Condition

_PLACEHOLDER: Final = re.compile(r"\$(\d+)")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a row, by its id (a UUID)."""

    row_id: str
    version: int


def among(
    resource: Resource,
    source: Source,
    wanted: Sequence[Sequence[Condition]],
    versions: Sequence[Version],
    tenant: str,
) -> list[Fragment]:
    """Place in `wanted` and id, for each of these lists of conditions and each version that fulfils all of them.

    Each id may be asked for once. One statement for all lists that differ in their values alone.
    """
    args = Arguments(tenant)
    spread = rows(source, versions, args)
    ids = args.add(_array(each.row_id for each in versions))
    # The versions' own entries are found once: most have none, and each row is held against them for each condition.
    head = (
        f"with {source.table} as materialized (\n{spread}\n), own_tokens as materialized (\n"
        "select a.tenant_id, e ->> 0 as parameter, coalesce(e ->> 1, '') as system, (e ->> 2) collate \"C\" as value, "
        f"a.id, '{source.kind}'::\"char\" as kind\n"
        f"from {source.table} a\ncross join lateral jsonb_array_elements(a.fhir_tokens) e\nwhere e ->> 2 is not null\n"
        "), search_tokens as not materialized (\n"
        "select t.tenant_id, t.parameter, t.system, t.value, t.id, t.kind\nfrom public.search_tokens t\n"
        f"where not (t.kind = '{source.kind}' and t.id = any({ids}::uuid[]))\nunion all\n"
        "select t.tenant_id, t.parameter, t.system, t.value, t.id, t.kind\nfrom own_tokens t\n)"
    )

    def body(conditions: Sequence[Condition], own: Arguments) -> str:
        found = branches.selects(resource, source, conditions, own)
        return "\nunion\n".join(f"select a.id\nfrom {tables}\nwhere {where}" for tables, where in found)

    return together(head, args, wanted, body)


def together(
    head: str,
    shared: Arguments,
    wanted: Sequence[Sequence[Condition]],
    body: Callable[[Sequence[Condition], Arguments], str],
) -> list[Fragment]:
    """Statements that return place in `wanted` and id: what the select of each list of conditions finds.

    `body` writes that select, nothing where it can find none. Selects with the same text are one statement, whose rows
    of arguments are joined to it. The `shared` arguments stand before theirs.
    """
    alike: dict[str, list[tuple[int, list[bytes | None]]]] = defaultdict(list)
    count = len(shared.values)
    for place, conditions in enumerate(wanted):
        own = Arguments("")
        own.values = list(shared.values)
        text = body(conditions, own)
        if text:
            alike[text].append((place, own.values[count:]))
    return [_joined(head, shared.values, text, listed) for text, listed in alike.items()]


def _joined(
    head: str, shared: Sequence[bytes | None], text: str, listed: Sequence[tuple[int, list[bytes | None]]]
) -> Fragment:
    count, own = len(shared), len(listed[0][1])
    columns = [_array(str(place) for place, _ in listed).encode()]
    columns += [text_array((values[index] or b"").decode() for _, values in listed) for index in range(own)]
    arrays = [f"${count + 1}::integer[]", *(f"${count + 2 + index}::text[]" for index in range(own))]
    names = ["place", *(f"v{count + 1 + index}" for index in range(own))]
    mine = _PLACEHOLDER.sub(lambda found: f"w.v{found[1]}" if int(found[1]) > count else found[0], text)
    whole = (
        f"{head}\nselect w.place, r.id\nfrom unnest({', '.join(arrays)}) w ({', '.join(names)})\n"
        f"cross join lateral (\n{mine}\n) r"
    )
    return Fragment(whole.lstrip(), (*shared, *columns))


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
