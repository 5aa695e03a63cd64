"""How fast Subscriptions are told: from the outbox to rest-hooks with a filter each, and from a commit to its endpoint.

The SQL alone takes the same events, matches and numbers them and marks them, and sends nothing.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from bench.relaying import relay
from fhir_sched.db import embedded
from fhir_sched.events import outbox
from fhir_sched.events.session import connect, under
from fhir_sched.subscriptions.fanout import Fanout

_TENANT = "00000000-0000-4000-8000-00000000000d"
_BATCH = 200
_SUBSCRIPTIONS = """
insert into subscriptions (tenant_id, id, status, criteria, caller, base, fhir)
select %(tenant)s, md5('s' || n)::uuid, 'active', 'http://fhir-sched.org/fhir/SubscriptionTopic/appointment-changed',
       '{"subject": "", "client": "", "patient": "", "user": "", "everything": true, "scopes": []}', 'http://x/fhir',
       jsonb_build_object(
           '_criteria', jsonb_build_object('extension', jsonb_build_array(jsonb_build_object(
               'url', %(backport)s || 'backport-filter-criteria',
               'valueString', 'Appointment?patient=Patient/' || md5('p' || n)::uuid))),
           'channel', jsonb_build_object(
               'type', 'rest-hook', 'endpoint', %(url)s::text, 'payload', 'application/fhir+json',
               '_payload', jsonb_build_object('extension', jsonb_build_array(jsonb_build_object(
                   'url', %(backport)s || 'backport-payload-content', 'valueCode', 'id-only')))))
from generate_series(1, %(count)s) n
"""
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
_APPOINTMENTS = """
insert into appointments (tenant_id, patient_id, status, created_by, start_at, end_at)
select %(tenant)s, md5('p' || 1 + n %% %(count)s)::uuid, 'booked', %(tenant)s, at, at + interval '10 minutes'
from (select n, timestamptz '2031-01-01' + n * interval '15 minutes' as at from generate_series(1, %(events)s) n) made
"""


@dataclass
class Received:
    """When each event came, by subscription and number; the foci by their references."""

    events: dict[tuple[str, str], float] = field(default_factory=dict)
    foci: dict[str, float] = field(default_factory=dict)

    def keep(self, body: bytes) -> None:
        """A notification."""
        now = time.perf_counter()
        status = json.loads(body)["entry"][0]["resource"]["parameter"]
        of = status[0]["valueReference"]["reference"]
        for parameter in status:
            if parameter["name"] == "notification-event":
                number, _, focus = parameter["part"]
                self.events.setdefault((of, number["valueString"]), now)
                self.foci.setdefault(focus["valueReference"]["reference"], now)


def measured(running: embedded.Embedded, events: int, commits: int, subscriptions: int = 100) -> dict[str, Any]:
    """Events a second of the SQL alone and to endpoints, their ratio, and delays in ms."""
    with _receiver() as (url, received), psycopg.connect(running.admin_url, autocommit=True) as connection:
        connection.execute("truncate outbox, outbox_deliveries")
        values = {
            "tenant": _TENANT, "backport": _BACKPORT, "url": url, "count": subscriptions, "events": events
        }  # fmt: skip
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute("set app.delivery = 'on'")
            cursor.execute(_SUBSCRIPTIONS, values)
            cursor.execute("reset app.delivery")
            cursor.execute(_APPOINTMENTS, values)
        connection.execute("vacuum analyze")
        sql = events / _sql_alone(running)
        connection.execute("set app.delivery = 'on'")
        connection.execute("delete from subscription_events")
        connection.execute("update subscriptions set events = 0, delivered = 0, due_at = null")
        connection.execute("update outbox set fanned = false")
        connection.execute("vacuum analyze")
        with relay(running, None, "--allow-private"):
            while len(received.events) < events:
                time.sleep(0.01)
            times = sorted(received.events.values())
            first = sum(at == times[0] for at in times)
            sent = (events - first) / (times[-1] - times[0])
            delays = sorted(_one(connection, received, number) for number in range(commits))
    return {
        "subscriptions": subscriptions,
        "subscriptions_sql_per_s": round(sql),
        "subscriptions_told_per_s": round(sent),
        "subscriptions_share_of_sql": round(sent / sql, 3),
        "subscriptions_p50_ms": round(delays[len(delays) // 2], 1),
        "subscriptions_p99_ms": round(delays[int(len(delays) * 0.99)], 1),
    }


def _sql_alone(running: embedded.Embedded) -> float:
    async def told() -> float:
        fanout = Fanout(tokens=False)
        async with await connect(running.app_url) as connection:
            since = (await fanout.tenants(connection))[_TENANT]
            began = time.perf_counter()
            while True:
                async with under(connection, _TENANT):
                    events = await outbox.take(
                        connection, _TENANT, _BATCH, outbox.TO_FAN_OUT, since=since, payloads=True
                    )
                    if not events:
                        return time.perf_counter() - began
                    await fanout.fan_out(connection, _TENANT, events)
                    await outbox.mark(connection, _TENANT, [event.id for event in events], "fanned")

    return asyncio.run(told())


def _one(connection: psycopg.Connection[Any], received: Received, number: int) -> float:
    """From the end of a commit to the request at the endpoint, in ms."""
    time.sleep(0.9 if number % 10 == 0 else 0.02)
    row = connection.execute(
        """
        insert into appointments (tenant_id, patient_id, status, created_by, start_at, end_at)
        select %s, md5('p1')::uuid, 'booked', %s, at, at + interval '10 minutes'
        from (select timestamptz '2041-01-01' + %s * interval '1 hour' as at) made
        returning id::text
        """,
        [_TENANT, _TENANT, number],
    ).fetchone()
    committed = time.perf_counter()
    focus = f"http://x/fhir/Appointment/apt-{row[0] if row else ''}"
    while (at := received.foci.get(focus)) is None:
        time.sleep(0.0005)
        if time.perf_counter() > committed + 30:
            raise RuntimeError("the endpoint heard nothing for 30 s")
    return (at - committed) * 1000


@contextmanager
def _receiver() -> Iterator[tuple[str, Received]]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            received.keep(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
