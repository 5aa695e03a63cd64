"""What the relay asks of large tables runs on indexes: taking, marking, retrying, matching, sending, counting.

100,000 events; a sink that is down, with 40,000 to be sent; a thousand subscriptions with 50,000 events.
Statements are caught as the relay sends them and explained as its role; those within functions as a superuser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from db import Cluster, Database
from fhir_sched.events import deliveries, outbox
from fhir_sched.events.session import connect, under
from fhir_sched.security.caller import Caller
from fhir_sched.subscriptions import claims, told
from fhir_sched.subscriptions.database import asking
from fhir_sched.subscriptions.fanout import Fanout

TENANT = str(UUID(int=1))
SINK = "https://down.example/"
BIG = {"outbox", "outbox_deliveries", "history", "subscription_events", "appointments", "search_tokens"}
FUNCTIONS = [
    "tenants_to_relay",
    "tenants_with_deliveries",
    "tenants_with_parked",
    "tenants_with_old_events",
    "tenants_to_fan_out",
    "tenants_with_notifications",
    "subscription_figures",
    "outbox_figures",
]
_LOAD = """
set session_replication_role = replica;
insert into appointments (tenant_id, id, patient_id, status, created_by, start_at, end_at, version)
select %(tenant)s, md5('a' || n)::uuid, md5('p' || n %% 500)::uuid, 'booked', md5('x')::uuid,
       timestamptz '2030-01-01' + n * interval '1 hour', timestamptz '2030-01-01' + (n + 1) * interval '1 hour', 2
from generate_series(1, 25000) n;
insert into history (tenant_id, table_name, id, version, updated_at, row)
select a.tenant_id, 'appointments', a.id, 1, now(), to_jsonb(a) from appointments a;
insert into outbox (tenant_id, id, aggregate_id, event_type, payload, created_at, published, queued, fanned)
select case when n %% 4 > 0 then %(tenant)s::uuid else md5('t' || n %% 20)::uuid end, md5('o' || n)::uuid,
       md5('a' || n %% 25000 + 1)::uuid, 'appointment.updated',
       jsonb_build_object('id', md5('a' || n %% 25000 + 1)::uuid, 'version', 1, 'row', to_jsonb(a)),
       clock_timestamp() - n * interval '1 second', n > 40000, n between 401 and 40000, n > 600
from generate_series(1, 100000) n
join appointments a on a.id = md5('a' || n %% 25000 + 1)::uuid;
insert into outbox_deliveries (tenant_id, event_id, sink, aggregate_id, created_at, due_at)
select o.tenant_id, o.id, %(sink)s, o.aggregate_id, o.created_at, o.created_at from outbox o where queued;
insert into search_tokens (tenant_id, parameter, system, value, id, kind)
select a.tenant_id, 'Appointment.identifier', 'http://s', a.id::text, a.id, 'a' from appointments a;
set session_replication_role = origin;
insert into subscriptions (tenant_id, id, criteria, caller, base, fhir)
select %(tenant)s, md5('s' || n)::uuid, 'http://fhir-sched.org/fhir/SubscriptionTopic/appointment-changed',
       '{"subject": "", "client": "", "patient": "", "user": "", "everything": true, "scopes": []}', 'http://x/fhir',
       jsonb_build_object('_criteria', jsonb_build_object('extension', jsonb_build_array(jsonb_build_object(
           'url', 'http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-filter-criteria',
           'valueString', 'Appointment?patient=Patient/' || md5('p' || n)::uuid))))
from generate_series(0, 999) n;
insert into subscription_events
    (tenant_id, subscription_id, number, occurred_at, outbox_id, action, table_name, id, version)
select %(tenant)s, md5('s' || n %% 1000)::uuid, 1 + n / 1000, now(), md5('o' || n)::uuid, 'updated', 'appointments',
       md5('a' || n %% 25000 + 1)::uuid, 1
from generate_series(0, 49999) n;
set app.delivery = 'on';
update subscriptions set events = 50, delivered = 40, status = 'active', due_at = now();
reset app.delivery
"""


@pytest.fixture(scope="module")
def large(cluster: Cluster, template: str) -> Iterator[Database]:
    """The data."""
    with cluster.fresh(template) as database:
        with database.connect_admin() as connection:
            with psycopg.ClientCursor(connection) as cursor:
                cursor.execute(_LOAD.encode(), {"tenant": TENANT, "sink": SINK})
            connection.execute("vacuum analyze")
        yield database


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _scans(plan: dict[str, Any]) -> list[str]:
    """The large tables that are read from one end to the other."""
    return [
        node["Relation Name"]
        for node in _nodes(plan)
        if node["Node Type"].endswith("Seq Scan") and node["Relation Name"] in BIG
    ]


async def _work(database: Database) -> dict[str, list[str]]:
    """Each statement that the relay sends about a tenant that has work of every kind, and what it scans whole."""
    found: dict[str, list[str]] = {}
    plain, raw = psycopg.AsyncCursor.execute, psycopg.AsyncRawCursor.execute

    def watching(execute: Any) -> Any:
        async def watched(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
            text = query.decode() if isinstance(query, bytes) else str(query)
            if any(table in text for table in BIG) and not text.startswith("explain"):
                explained = f"explain (format json) {text}".encode()
                await execute(self, explained, params, prepare=False)
                found[text] = _scans((await self.fetchone())[0][0]["Plan"])
            return await execute(self, query, params, **options)

        return watched

    patched = pytest.MonkeyPatch()
    patched.setattr(psycopg.AsyncCursor, "execute", watching(plain))
    patched.setattr(psycopg.AsyncRawCursor, "execute", watching(raw))
    try:
        async with await connect(database.app_url) as connection:
            ask, telling = asking(connection), Fanout(tokens=False)
            since = (await telling.tenants(connection))[TENANT]
            async with under(connection, TENANT):
                events = await outbox.take(connection, TENANT, 200)
                assert len(events) == 200
                await deliveries.held(connection, TENANT, [SINK], [event.aggregate for event in events])
                await deliveries.add(connection, TENANT, [deliveries.Miss(events[0], SINK, "down")], 8)
                await outbox.mark(connection, TENANT, [event.id for event in events[1:]], "published")
                due = await deliveries.take(connection, TENANT, SINK, 100)
                assert len(due) == 100
                await outbox.again(connection, TENANT, [each.event for each in due])
                await deliveries.done(connection, TENANT, SINK, [each.event for each in due])
                await outbox.remove_old(connection, TENANT, 1, 1000)
            async with under(connection, TENANT):
                events = await outbox.take(connection, TENANT, 200, outbox.TO_FAN_OUT, since=since, payloads=True)
                await telling.fan_out(connection, TENANT, events)
                await outbox.mark(connection, TENANT, [event.id for event in events], "fanned")
                reader = told.Reader(Caller("", everything=True), TENANT, "http://x/fhir")
                taken = await ask(claims.take(TENANT, 1, 32))
                each = claims.claimed(TENANT, taken[0])
                assert await told.events(ask, reader, each.row_id, (41, 50), 10, whole=True)
                await ask(claims.remove_old(TENANT, 30))
    finally:
        patched.undo()
    return found


def test_what_the_relay_sends_runs_on_indexes(large: Database) -> None:
    found = asyncio.run(_work(large))
    assert len(found) > 12
    assert {text: scanned for text, scanned in found.items() if scanned} == {}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_looks_across_tenants_runs_on_indexes(large: Database, name: str) -> None:
    with large.connect_admin() as connection:
        row = connection.execute("select prosrc from pg_proc where proname = %s", [f"fhir_sched_{name}"]).fetchone()
        assert row is not None
        text = str(row[0]).replace("moment", "(now() - interval '1 day')")
        connection.execute("set enable_seqscan = off")
        explained = connection.execute(f"explain (format json) {text}".encode()).fetchone()
        assert explained is not None
        assert _scans(explained[0][0]["Plan"]) == []
