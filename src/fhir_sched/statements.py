"""Rows in and out, one SQL statement each: read, insert, update, delete. Pure: no connection, no I/O.

Every statement names the tenant in its `where` although row-level security does too. What else a change brings with it
(versions, history, outbox, slots taken and freed) is done by triggers, for every writer alike.
"""

from __future__ import annotations

from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import Source
from fhir_sched.element import Columns

_READS: dict[str, str] = {}
_EXPIRY = "clock_timestamp() + ${}::interval"


def read(source: Source, row_id: str, tenant: str) -> Fragment:
    """The row with that id: `source.columns`; empty when there is none."""
    text = _READS.get(source.table)
    if text is None:
        columns = ", ".join(source.select_list)
        text = f"select {columns}\nfrom {source.table} a\nwhere a.tenant_id = $1::uuid\n  and a.id = $2::uuid"
        _READS[source.table] = text
    return Fragment(text, (tenant.encode(), row_id.encode()), steady=True)


def read_locked(source: Source, row_id: str, tenant: str) -> Fragment:
    """The same row, which nobody else can change until the transaction ends."""
    found = read(source, row_id, tenant)
    return Fragment(f"{found.text}\nfor no key update of a", found.args)


def last_version(source: Source, row_id: str, tenant: str) -> Fragment:
    """The newest entry of the history of an id: version, deleted; empty when the id never existed or never changed."""
    text = (
        "select h.version, h.deleted\nfrom history h\nwhere h.tenant_id = $1::uuid\n  and h.table_name = $2\n"
        "  and h.id = $3::uuid\norder by h.version desc\nlimit 1"
    )
    return Fragment(text, (tenant.encode(), source.table.encode(), row_id.encode()))


def insert(
    source: Source, columns: Columns, tenant: str, row_id: str | None = None, hold_seconds: int | None = None
) -> Fragment:
    """The new row, returned as `source.columns`; `row_id` only to bring a deleted one back.

    With `hold_seconds` it is held from now on, by the database's clock.
    """
    given: Columns = {"tenant_id": tenant.encode(), **columns}
    if row_id is not None:
        given["id"] = row_id.encode()
    names = ", ".join(given)
    places = ", ".join(f"${index}" for index in range(1, len(given) + 1))
    if hold_seconds is not None:
        names += ", hold_expires_at"
        places += f", {_EXPIRY.format(len(given) + 1)}"
        given["hold_expires_at"] = f"{hold_seconds} seconds".encode()
    text = f"insert into {source.table} as a ({names})\nvalues ({places})\nreturning {', '.join(source.select_list)}"
    return Fragment(text, tuple(given.values()))


def update(source: Source, row_id: str, columns: Columns, tenant: str, versions: tuple[str, ...] | None) -> Fragment:
    """The changed row as `source.columns`; empty when there is none or its version is not one of `versions`."""
    args: list[bytes | None] = [tenant.encode(), row_id.encode()]
    changes = []
    for name, value in columns.items():
        args.append(value)
        changes.append(f"{name} = ${len(args)}")
    guard = _version_guard(versions, args)
    text = (
        f"update {source.table} a\nset {', '.join(changes)}\n"
        f"where a.tenant_id = $1::uuid\n  and a.id = $2::uuid{guard}\n"
        f"returning {', '.join(source.select_list)}"
    )
    return Fragment(text, tuple(args))


def prolong(source: Source, row_id: str, tenant: str, hold_seconds: int) -> Fragment:
    """The pending row, held for so long from now on and never shorter than before; empty when there is none."""
    text = (
        f"update {source.table} a\nset hold_expires_at = greatest(a.hold_expires_at, {_EXPIRY.format(3)})\n"
        f"where a.tenant_id = $1::uuid\n  and a.id = $2::uuid\n  and a.status = 'pending'\n"
        f"returning {', '.join(source.select_list)}"
    )
    return Fragment(text, (tenant.encode(), row_id.encode(), f"{hold_seconds} seconds".encode()))


def delete(source: Source, row_id: str, tenant: str, versions: tuple[str, ...] | None) -> Fragment:
    """The version that was deleted, with what its event needs; empty when there was no row or not of `versions`."""
    args: list[bytes | None] = [tenant.encode(), row_id.encode()]
    guard = _version_guard(versions, args)
    text = (
        f"delete from {source.table} a\nwhere a.tenant_id = $1::uuid\n  and a.id = $2::uuid{guard}\n"
        f"returning a.version, a.id, a.fhir{', a.patient_id' if 'patient_id' in source.columns else ''}"
    )
    return Fragment(text, tuple(args))


def _version_guard(versions: tuple[str, ...] | None, args: list[bytes | None]) -> str:
    if versions is None:
        return ""
    args.append(("{" + ",".join(versions) + "}").encode())
    return f"\n  and a.version = any(${len(args)}::integer[])"
