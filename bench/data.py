"""Makes the benchmark's database: loaded as another program's rows, then taken over by `migrate`.

The model's tables are filled while they have no index and no constraint, those come back, and the migrations run on
what is there, as they would for a clinic that starts to use the product. The result is compared with a freshly migrated
database, object by object, and kept between runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from bench import shape
from fhir_sched.db import embedded, migrations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = "bench"
SERVER_SETTINGS = {
    "fsync": "on",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
}
# the format of what is loaded: another number makes the database anew
_EDITION = 1

Say = Callable[[str], None]


@contextmanager
def cluster(data_dir: Path) -> Iterator[embedded.Embedded]:
    """The benchmark's own PostgreSQL, for as long as the block runs."""
    with embedded.start(data_dir, purpose="fhir-sched bench", server_settings=SERVER_SETTINGS) as running:
        yield running


def prepare(running: embedded.Embedded, say: Say) -> None:
    """Make the database, or bring the one that is there up to date; clear what an earlier run left."""
    if not _is_there(running) or not _bring_up_to_date(running, say):
        _make(running, say)
    restore(running)


def restore(running: embedded.Embedded) -> None:
    """Take the bookings of earlier rounds away, without a trace in history or outbox, and tidy up."""
    with psycopg.connect(running.url(embedded.OWNER, DATABASE), autocommit=True) as connection:
        if connection.execute("select to_regclass('audit_events') is not null").fetchone() == (True,):
            connection.execute("truncate audit_events")
        changed = connection.execute("select from outbox limit 1").fetchone()
        if changed is None:
            return
        with connection.transaction():
            # nothing that follows is to fire a trigger
            connection.execute("set local session_replication_role = replica")
            connection.execute("delete from appointments where created_by <> %s", [shape.LOADER])
            connection.execute(
                "delete from provider_times t"
                " where not exists (select from appointments a where a.id = t.appointment_id)"
            )
            connection.execute("delete from search_tokens where kind = 'a'")
            connection.execute(
                "update slots set status = 'free', fhir = null, version = 1, updated_at = created_at where version > 1"
            )
            connection.execute("truncate outbox, history")
        for table in ("appointments", "provider_times", "search_tokens", "slots", "outbox", "history"):
            connection.execute(f"vacuum analyze {table}")
        connection.execute("checkpoint")


def _is_there(running: embedded.Embedded) -> bool:
    with psycopg.connect(running.admin_url) as connection:
        if connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone() is None:
            return False
    with psycopg.connect(running.url(embedded.OWNER, DATABASE)) as connection:
        edition = connection.execute("select obj_description('public.slots'::regclass)").fetchone()
    return edition == (f"bench {_EDITION}",)


def _bring_up_to_date(running: embedded.Embedded, say: Say) -> bool:
    """Apply migrations that are new; False when one that was applied has changed since, or the outcome differs."""
    restore(running)
    try:
        applied = migrations.migrate(running.url(embedded.OWNER, DATABASE), progress=say)
        if applied:
            _compare(running, DATABASE)
    except (migrations.MigrationError, DifferenceError) as error:
        say(f"the database is made anew: {error}")
        return False
    return True


def _make(running: embedded.Embedded, say: Say) -> None:
    started = time.monotonic()
    for name in (DATABASE, "bench_new", "bench_fresh"):
        _drop(running, name)
    _create(running, "bench_new")
    with psycopg.connect(running.url(embedded.OWNER, "bench_new"), autocommit=True) as connection:
        connection.execute(migrations.available()[0].text.encode())
        _load(connection, say)
    say("migrating what was loaded …")
    migrations.migrate(running.url(embedded.OWNER, "bench_new"), progress=say)
    _compare(running, "bench_new")
    with psycopg.connect(running.url(embedded.OWNER, "bench_new"), autocommit=True) as connection:
        connection.execute(f"comment on table slots is 'bench {_EDITION}'")
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
    with psycopg.connect(running.admin_url, autocommit=True) as connection:
        connection.execute("alter database bench_new rename to bench")
    say(f"the database is there after {time.monotonic() - started:.0f} s and is kept")


def _create(running: embedded.Embedded, name: str) -> None:
    with psycopg.connect(running.admin_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def _drop(running: embedded.Embedded, name: str) -> None:
    with psycopg.connect(running.admin_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


_SCHEDULES = f"""
insert into schedules (id, tenant_id, actor_id, actor_type, timezone, service_types)
select {shape.key_sql("s", "n")}, {shape.key_sql("t", f"n % {shape.TENANTS}")},
       {shape.key_sql("d", f"n % {shape.SCHEDULES // 2}")}, 'provider', 'UTC', array['general-practice']
from generate_series(0, {shape.SCHEDULES - 1}) n
"""
_SLOTS = f"""
insert into slots (id, tenant_id, schedule_id, status, start_at, end_at, appointment_type)
select {shape.key_sql("n", "n")}, {shape.key_sql("t", f"s % {shape.TENANTS}")}, {shape.key_sql("s", "s")},
       case n % 4 when 3 then 'busy' else 'free' end, {shape.start_sql("n")}, {shape.end_sql("n")},
       ('{{{",".join(shape.TYPES)}}}'::text[])[1 + n % {len(shape.TYPES)}]
from generate_series(0, {shape.SCHEDULES - 1}) s
cross join lateral generate_series(s * {shape.SLOTS_EACH}, (s + 1) * {shape.SLOTS_EACH} - 1) n
"""
_APPOINTMENTS = f"""
insert into appointments (id, tenant_id, patient_id, slot_id, schedule_id, appointment_type, status, start_at, end_at,
                          provider_id, created_by)
select {shape.key_sql("a", "a")}, {shape.key_sql("t", f"s % {shape.TENANTS}")},
       {shape.key_sql("p", f"a % {shape.PATIENTS}")}, {shape.key_sql("n", "n")}, {shape.key_sql("s", "s")},
       ('{{{",".join(shape.TYPES)}}}'::text[])[1 + a % {len(shape.TYPES)}], 'booked',
       {shape.start_sql("n")}, {shape.end_sql("n")}, {shape.key_sql("d", f"s % {shape.SCHEDULES // 2}")},
       '{shape.LOADER}'
from generate_series(0, {shape.APPOINTMENTS - 1}) a
cross join lateral (select a * 4 + 3 as n, (a * 4 + 3) / {shape.SLOTS_EACH} as s) as of_slot
"""


def _load(connection: psycopg.Connection, say: Say) -> None:
    """Fill the model's tables with their indexes and constraints put aside."""
    constraints = connection.execute(
        """
        select conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid)
        from pg_constraint
        where conrelid in ('schedules'::regclass, 'slots'::regclass, 'appointments'::regclass)
          and contype in ('p', 'u', 'x', 'f')
        order by contype = 'f'
        """
    ).fetchall()
    indexes = connection.execute(
        """
        select indexrelid::regclass::text, pg_get_indexdef(indexrelid)
        from pg_index
        where indrelid in ('schedules'::regclass, 'slots'::regclass, 'appointments'::regclass)
          and not exists (select from pg_constraint where conindid = indexrelid)
        """
    ).fetchall()
    outside = connection.execute(
        """
        select conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid)
        from pg_constraint
        where contype = 'f' and conrelid = 'schedule_exceptions'::regclass
        """
    ).fetchall()
    for table, name, _ in [*outside, *reversed(constraints)]:
        connection.execute(f"alter table {table} drop constraint {name}".encode())
    for name, _ in indexes:
        connection.execute(f"drop index {name}".encode())
    for text, what in ((_SCHEDULES, "schedules"), (_SLOTS, "slots"), (_APPOINTMENTS, "appointments")):
        started = time.monotonic()
        count = connection.execute(text.encode()).rowcount
        say(f"{count:,} {what} {time.monotonic() - started:.0f} s")
    for table, name, definition in [*constraints, *outside]:
        connection.execute(f"alter table {table} add constraint {name} {definition}".encode())
    for _, definition in indexes:
        connection.execute(definition.encode())
    connection.execute("analyze")


_CATALOGUE = """
select 'column ' || format('%s.%s %s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod),
                           attnotnull, attgenerated, pg_get_expr(adbin, adrelid))
from pg_attribute
left join pg_attrdef on adrelid = attrelid and adnum = attnum
where attrelid in (select oid from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v'))
  and attnum > 0 and not attisdropped
union all
select 'table ' || format('%s %s %s %s', oid::regclass, relrowsecurity, relforcerowsecurity, relacl)
from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')
union all
select 'constraint ' || format('%s %s %s %s', conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid))
from pg_constraint where connamespace = 'public'::regnamespace
union all
select 'index ' || pg_get_indexdef(indexrelid) || format(' %s', indisvalid)
from pg_index where indrelid in (select oid from pg_class where relnamespace = 'public'::regnamespace)
union all
select 'trigger ' || pg_get_triggerdef(oid) || format(' %s', tgenabled) from pg_trigger where not tgisinternal
union all
select 'policy ' || format('%s %s %s %s %s', tablename, policyname, roles, qual, with_check)
from pg_policies where schemaname = 'public'
union all
select 'function ' || format('%s %s %s %s', oid::regprocedure, proowner::regrole, proacl, md5(prosrc))
from pg_proc where pronamespace = 'public'::regnamespace
"""


class DifferenceError(Exception):
    """What the database has and a migrated one has not, or the other way round, one object a line."""


def _compare(running: embedded.Embedded, name: str) -> None:
    """Raises DifferenceError unless the database has exactly the objects of a freshly migrated one."""
    _drop(running, "bench_fresh")
    _create(running, "bench_fresh")
    migrations.migrate(running.url(embedded.OWNER, "bench_fresh"))
    found = []
    for each in (name, "bench_fresh"):
        with psycopg.connect(running.url(embedded.OWNER, each)) as connection:
            found.append({row[0] for row in connection.execute(_CATALOGUE)})
    _drop(running, "bench_fresh")
    loaded, fresh = found
    if loaded != fresh:
        differences = sorted(f"  - {text}" for text in fresh - loaded) + sorted(
            f"  + {text}" for text in loaded - fresh
        )
        raise DifferenceError("\n".join(["it differs from a migrated one:", *differences]))
