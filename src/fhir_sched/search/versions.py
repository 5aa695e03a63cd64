"""History and versions -> SQL. R4 3.1.0.2 (vread), 3.1.0.11 (history). Pure: no connection, no I/O.

A version is the row itself or an entry of `history`, whose row is spread into the table's columns again, so that both
are read alike. Newest first; the place in a long history is a key, not an offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import Resource, Source
from fhir_sched.search.predicate import Arguments
from fhir_sched.search.query import DateValue, Position

LEAD = 5
"""Columns in front of a version's own: place of its source, deleted, id, version, updated_at."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which versions: of one row (`row_id`) or of all, changed since a moment, current at some time in an interval.

    `count` and one more are fetched; `position` is the last version seen: updated_at, id, version. `patients`: only
    versions in which one of them (a reference and its UUID each) took part; for the resources of patients alone.
    """

    row_id: str | None = None
    since: str | None = None
    at: DateValue | None = None
    count: int = 50
    position: Position | None = None
    patients: tuple[tuple[str, str], ...] = ()


def one(source: Source, row_id: str, version: str, tenant: str) -> Fragment:
    """One version of a row: deleted, then `source.columns`; a deletion has NULLs there. Empty when there is none."""
    columns = ", ".join(source.select_list)
    text = (
        f"select false as deleted, {columns}\nfrom {source.table} a\n"
        "where a.tenant_id = $1::uuid\n  and a.id = $2::uuid\n  and a.version = $3::integer\n"
        f"union all\nselect h.deleted, {columns}\nfrom {_spread(source)}\n"
        "where h.tenant_id = $1::uuid\n  and h.table_name = $4\n  and h.id = $2::uuid\n  and h.version = $3::integer"
    )
    return Fragment(text, (tenant.encode(), row_id.encode(), version.encode(), source.table.encode()))


def _spread(source: Source) -> str:
    """`history` with each entry's row as a row `a` of its table (all NULL for a deletion)."""
    return f"history h\ncross join lateral jsonb_populate_record(null::{source.table}, coalesce(h.row, '{{}}')) a"


def listing(sources: Sequence[tuple[Resource, Source]], span: Span, tenant: str) -> Fragment:
    """Versions of the sources' rows, newest first: LEAD columns, then those of the source, the rest NULL."""
    args = Arguments(tenant)
    width = max(len(source.columns) for _, source in sources)
    branches = []
    for place, (_, source) in enumerate(sources):
        columns = [f"{expression}::text" for expression in source.select_list]
        shown = ", ".join(columns + ["null"] * (width - len(columns)))
        own = _of_patients(span.patients, source, args)
        branches.append(
            f"select {place} as place, false as deleted, a.id as row_id, a.version as row_version, "
            f"a.updated_at as changed, {shown}\nfrom {source.table} a\nwhere a.tenant_id = $1::uuid"
            f"{own}{_conditions(source, span, 'a', args, current=True)}"
        )
        branches.append(
            f"select {place}, h.deleted, h.id, h.version, h.updated_at, {shown}\nfrom {_spread(source)}\n"
            f"where h.tenant_id = $1::uuid\n  and h.table_name = {args.add(source.table)}"
            f"{own}{_conditions(source, span, 'h', args, current=False)}"
        )
    cut = f"\norder by changed desc, row_id desc, row_version desc\nlimit {span.count + 1}"
    ordered = "\norder by 5 desc, 3 desc, 4 desc"
    joined = "\nunion all\n".join(f"({branch}{ordered}\nlimit {span.count + 1})" for branch in branches)
    return Fragment(f"select *\nfrom (\n{joined}\n) versions{cut}", tuple(args.values))


def _of_patients(patients: tuple[tuple[str, str], ...], source: Source, args: Arguments) -> str:
    """Versions of which one of the patients is a participant; a deletion shows nobody, so it is left out."""
    if not patients or "patient_id" not in source.columns:
        return ""
    parts = []
    for reference, uuid in patients:
        within = f'[{{"actor":{{"reference":"{reference}"}}}}]'
        parts.append(f"a.patient_id = {args.add(uuid)}::uuid or a.fhir -> 'participant' @> {args.add(within)}::jsonb")
    return f"\n  and ({' or '.join(parts)})"


def _conditions(source: Source, span: Span, alias: str, args: Arguments, *, current: bool) -> str:
    found = []
    if span.row_id is not None:
        found.append(f"{alias}.id = {args.add(span.row_id)}::uuid")
    if span.since is not None:
        found.append(f"{alias}.updated_at >= {args.add(span.since)}::timestamptz")
    if span.at is not None:
        found.append(f"{alias}.updated_at < {args.add(_moment(span.at.high.isoformat()))}::timestamptz")
        if not current:
            found.append(_still_current(source, args.add(_moment(span.at.low.isoformat()))))
    if span.position is not None:
        changed, row_id, version = (args.add(key) for key in span.position.keys)
        found.append(
            f"({alias}.updated_at, {alias}.id, {alias}.version) "
            f"{'>' if span.position.backward else '<'} ({changed}::timestamptz, {row_id}::uuid, {version}::integer)"
        )
    return "".join(f"\n  and {condition}" for condition in found)


def _moment(text: str) -> str:
    return text if "+" in text else text + "+00:00"


def _still_current(source: Source, low: str) -> str:
    """The next version did not come before the interval began."""
    same = "n.tenant_id = h.tenant_id and n.id = h.id and n.version = h.version + 1"
    return (
        f"not exists (select from history n where {same} and n.table_name = h.table_name "
        f"and n.updated_at <= {low}::timestamptz) "
        f"and not exists (select from {source.table} n where {same} and n.updated_at <= {low}::timestamptz)"
    )
