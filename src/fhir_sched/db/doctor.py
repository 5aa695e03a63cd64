"""What is wrong with a database, and how to mend it: for `fhir-sched check`, for the start of the server, for /readyz.

Law: the server works only as a role that row-level security binds, on a schema that is current, on a PostgreSQL that
keeps what it has confirmed. Reads catalogues alone, never a row of a tenant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import psycopg

from fhir_sched.db.migrations import APP_ROLE, MODEL_TABLES, Migration, available, shortfall

OLDEST: Final = 15
NEWEST: Final = 18
_DURABILITY: Final = ("fsync", "full_page_writes", "synchronous_commit")
_INDEX: Final = re.compile(
    r"\bcreate\s+(?:unique\s+)?index\s+(?:concurrently\s+)?(?:if\s+not\s+exists\s+)?(\w+)\s+on\b"
    r"|\bdrop\s+index\s+(?:concurrently\s+)?(?:if\s+exists\s+)?(?:public\.)?(\w+)",
    re.IGNORECASE,
)

# One row: what was applied (or null when that cannot be read) and the three settings, in one trip.
READY_SQL: Final = """
select (select json_agg(concat_ws(' ', version, name, checksum) order by version)::text
        from public.fhir_sched_migrations),
       current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what mends it."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


def check(url: str, *, durability: bool = True) -> list[Finding]:
    """Everything that is wrong with the database at `url` for the role that it names; empty when all is well.

    `durability` is the concern of those who confirm bookings; who only passes on what is there may leave it out.
    """
    try:
        with psycopg.connect(url, connect_timeout=10, application_name="fhir-sched check") as connection:
            return list(findings(connection, durability=durability))
    except psycopg.OperationalError as error:
        return [Finding(f"the database cannot be reached: {' '.join(str(error).split())}", _reach_remedy(str(error)))]


def findings(connection: psycopg.Connection, *, durability: bool = True) -> Iterator[Finding]:
    """As `check`, on an open connection of the role that serves."""
    yield from _server(connection)
    if durability:
        yield from _durability(connection)
    yield from _role(connection)
    current = list(_migrations(connection))
    yield from current
    if not current:
        yield from _row_level_security(connection)
        yield from _rights(connection)
        yield from _indexes(connection)


def ready(connection: psycopg.Connection) -> list[str]:
    """Why the server should not be sent requests now, from one cheap query; empty when it may."""
    try:
        row = connection.execute(READY_SQL).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        return ["the migrations are not current"]
    except psycopg.Error:
        return ["the database does not answer"]
    return [] if row is None else not_ready(row)


def not_ready(row: tuple[str | None, ...]) -> list[str]:
    """What the row of `READY_SQL` says against sending requests; its values are texts."""
    reasons = [f"{name} is off" for name, value in zip(_DURABILITY, row[1:], strict=True) if value == "off"]
    if json.loads(row[0] or "null") != _expected():
        reasons.append("the migrations are not current")
    return reasons


@cache
def _expected() -> list[str]:
    """What `READY_SQL` finds in a current database; the files do not change while a server runs."""
    return [f"{migration.version} {migration.name} {migration.checksum}" for migration in available()]


def _server(connection: psycopg.Connection) -> Iterator[Finding]:
    version = connection.info.server_version // 10_000
    if not OLDEST <= version <= NEWEST:
        yield Finding(f"this is PostgreSQL {version}", f"use one of {OLDEST} to {NEWEST}")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        yield Finding(f"the database's encoding is {encoding}", "create it anew with encoding 'UTF8'")


def _durability(connection: psycopg.Connection) -> Iterator[Finding]:
    for name in _DURABILITY:
        if _value(connection, "select current_setting(%s)", [name]) == "off":
            yield Finding(
                f"{name} is off, so what was confirmed can be lost",
                f"as a superuser: alter system set {name} = on; select pg_reload_conf(); "
                f"and see that no role or database sets it off",
            )


def _role(connection: psycopg.Connection) -> Iterator[Finding]:
    row = connection.execute(
        "select rolname, rolsuper, rolbypassrls from pg_roles where rolname = current_user"
    ).fetchone()
    if row is None:
        return
    role, superuser, bypasses = row
    remedy = f"let FHIR_SCHED_DATABASE_URL log in as {APP_ROLE}, which `fhir-sched migrate` creates"
    if superuser:
        yield Finding(f"the role {role} is a superuser, whom row-level security does not bind", remedy)
        return
    if bypasses:
        yield Finding(f"the role {role} has BYPASSRLS", f"alter role {role} nobypassrls; or {remedy}")
    owned = _values(
        connection,
        """
        select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
          and pg_has_role(current_user, c.relowner, 'MEMBER')
        order by 1
        """,
    )
    if owned:
        yield Finding(f"the role {role} owns {', '.join(owned)} (or is a member of the owner)", remedy)


def _migrations(connection: psycopg.Connection) -> Iterator[Finding]:
    remedy = "FHIR_SCHED_ADMIN_URL=postgresql://owner@… fhir-sched migrate"
    try:
        rows = connection.execute("select version, name, checksum from public.fhir_sched_migrations order by version")
        problem = shortfall(available(), [(int(row[0]), str(row[1]), str(row[2])) for row in rows])
    except psycopg.errors.UndefinedTable:
        connection.rollback()
        yield Finding("no migration has been applied to this database", remedy)
    except psycopg.errors.InsufficientPrivilege:
        connection.rollback()
        yield Finding("the role may not read fhir_sched_migrations", remedy)
    else:
        if problem:
            yield Finding(f"the migrations are not current: {problem}", remedy)


def _row_level_security(connection: psycopg.Connection) -> Iterator[Finding]:
    tables = connection.execute(
        """
        select c.relname, c.relrowsecurity, c.relforcerowsecurity,
               exists (select from pg_policy p where p.polrelid = c.oid)
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
        order by 1
        """
    ).fetchall()
    for table, enabled, forced, has_policy in tables:
        if not enabled:
            yield Finding(f"{table} has no row-level security", f"alter table {table} enable row level security")
        if not forced:
            yield Finding(f"{table} does not force it on its owner", f"alter table {table} force row level security")
        if not has_policy:
            yield Finding(
                f"{table} has no policy",
                f"create policy {table}_tenant_isolation on {table} using "
                "(tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))",
            )
    views = _values(
        connection,
        """
        select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('v', 'm')
          and has_table_privilege(c.oid, 'select')
          and (c.relkind = 'm' or coalesce(c.reloptions::text, '') !~ 'security_invoker=(true|on|1)')
        order by 1
        """,
    )
    for view in views:
        yield Finding(f"the view {view} shows every tenant's rows", f"alter view {view} set (security_invoker = true)")


def _rights(connection: psycopg.Connection) -> Iterator[Finding]:
    for table in MODEL_TABLES:
        wanted = ("select", "update") if table == "outbox" else ("select", "insert", "update", "delete")
        # The outbox is updated in one column only.
        question = (
            "select has_any_column_privilege(%s, %s)" if table == "outbox" else "select has_table_privilege(%s, %s)"
        )
        lacking = [right for right in wanted if not _value(connection, question, [f"public.{table}", right])]
        if lacking:
            listed = ", ".join(lacking)
            yield Finding(f"the role may not {listed} in {table}", f"grant {listed} on {table} to {APP_ROLE}")
    # The audit log is append-only: who serves adds to it and reads it.
    for right in ("select", "insert"):
        if not _value(connection, "select has_table_privilege('public.audit_events', %s)", [right]):
            yield Finding(f"the role may not {right} in audit_events", f"grant {right} on audit_events to {APP_ROLE}")
    for right in ("update", "delete", "truncate"):
        if _value(connection, "select has_table_privilege('public.audit_events', %s)", [right]):
            yield Finding(
                f"the role may {right} in audit_events, which nobody may change",
                f"revoke {right} on audit_events from {APP_ROLE}",
            )


def _indexes(connection: psycopg.Connection) -> Iterator[Finding]:
    there: dict[str, bool] = dict(
        connection.execute(
            """
            select c.relname, i.indisvalid and i.indisready
            from pg_index i join pg_class c on c.oid = i.indexrelid
            where c.relnamespace = 'public'::regnamespace
            """
        ).fetchall()
    )
    for name, migration in declared_indexes(available()).items():
        if name not in there:
            yield Finding(f"the index {name} is missing", f"create it as sql/{migration.file_name} does")
        elif not there[name]:
            yield Finding(f"the index {name} is not valid", f"reindex index {name}")


def declared_indexes(migrations: tuple[Migration, ...]) -> dict[str, Migration]:
    """Name of each index that the files create and do not drop later, with the file that creates it."""
    declared: dict[str, Migration] = {}
    for migration in migrations:
        for created, dropped in _INDEX.findall(re.sub(r"--[^\n]*", "", migration.text)):
            if created:
                declared[created.lower()] = migration
            else:
                declared.pop(dropped.lower(), None)
    return declared


def _reach_remedy(message: str) -> str:
    if "password authentication failed" in message or "no password supplied" in message:
        return f"put the role's password into FHIR_SCHED_DATABASE_URL, or set it: alter role {APP_ROLE} password '…'"
    if "does not exist" in message:
        return "create it, then run `fhir-sched migrate` with FHIR_SCHED_ADMIN_URL"
    return "see that PostgreSQL runs and that FHIR_SCHED_DATABASE_URL names its host, port and database"


def _value(connection: psycopg.Connection, query: str, arguments: list[str]) -> Any:
    row = connection.execute(query.encode(), arguments).fetchone()
    return None if row is None else row[0]


def _values(connection: psycopg.Connection, query: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(query.encode())]
