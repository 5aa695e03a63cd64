"""Every advertised search parameter runs on an index, and a request takes the round trips it should take, no more.

The data are large enough that a plan matters: 180,000 slots, 50,000 appointments and their codes in three tenants. The
statements are those that the server sends, run as the server's role under row-level security.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from hashlib import md5
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from clinic import PATIENT, Resource, appointment, name
from db import APP_PASSWORD, Cluster, Database
from fhir_sched.binding import IdColumn, References, SideTable
from fhir_sched.codec import interval
from fhir_sched.db import migrations
from fhir_sched.db.fragment import Fragment
from fhir_sched.definition import DateParam, Param, ReferenceParam, TokenParam, UriParam
from fhir_sched.definition import Resource as Declared
from fhir_sched.http.app import App, create_app
from fhir_sched.resources import RESOURCES, SERVED
from fhir_sched.search import openings, sql
from fhir_sched.search.openings import Openings
from fhir_sched.search.parse import Parser
from fhir_sched.search.query import Criterion, ReferenceValue, TokenValue
from fhir_sched.settings import load

TENANTS = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(3)]
TENANT = TENANTS[0]
BASE = f"http://x/fhir/{TENANT}"
SCHEDULES, SLOTS, APPOINTMENTS = 300, 600, 60_000  # slots of each schedule
BIG = {"slots", "appointments", "search_tokens", "history", "audit_events"}
SLACK = 1000
"""Rows that a filter may throw away for nothing: about one in a hundred of a tenant's slots."""

_LOAD = """
insert into schedules (id, tenant_id, actor_id, actor_type, timezone, service_types)
select md5('c' || n)::uuid, (%(tenants)s::uuid[])[1 + n %% 3], md5('d' || n / 2)::uuid, 'provider',
       (array['UTC', 'Europe/Berlin', 'America/New_York'])[1 + n %% 3], array['57', 'http://s|' || n %% 7]
from generate_series(0, %(schedules)s - 1) n;
insert into slots (id, tenant_id, schedule_id, status, start_at, end_at, appointment_type, updated_at)
select md5('s' || c || '-' || n)::uuid, (%(tenants)s::uuid[])[1 + c %% 3], md5('c' || c)::uuid,
       (array['free', 'busy', 'free', 'free', 'blocked', 'free', 'free', 'entered-in-error'])[1 + n %% 8],
       timestamptz '2026-01-01T08:00Z' + n / 16 * interval '1 day' + n %% 16 * interval '30 minutes',
       timestamptz '2026-01-01T08:30Z' + n / 16 * interval '1 day' + n %% 16 * interval '30 minutes',
       case when n %% 3 = 0 then (array['ROUTINE', 'CHECKUP', 'FOLLOWUP', 'WALKIN', 'MRI'])[1 + n %% 5] end,
       timestamptz '2026-01-01Z' + (c * 7919 + n * 104729) %% 20000000 * interval '1 second'
from generate_series(0, %(schedules)s - 1) c, generate_series(0, %(slots)s - 1) n;
insert into appointments (id, tenant_id, patient_id, slot_id, schedule_id, appointment_type, status, start_at, end_at,
                          provider_id, location_id, created_by, updated_at)
select md5('a' || s.id)::uuid, s.tenant_id, md5('p' || row_number() over () %% 5000)::uuid, s.id, s.schedule_id,
       'ROUTINE', (array['booked', 'fulfilled', 'noshow', 'arrived', 'pending'])[1 + row_number() over () %% 5],
       s.start_at, s.end_at, c.actor_id, md5('l' || row_number() over () %% 40)::uuid, s.tenant_id, s.updated_at
from slots s join schedules c on c.id = s.schedule_id and md5(c.id::text) < md5('x')
where s.status = 'busy' limit %(appointments)s;
insert into appointments (id, tenant_id, patient_id, schedule_id, status, created_by, start_at, end_at, updated_at)
select md5('b' || s.id)::uuid, s.tenant_id, md5('p' || row_number() over () %% 5000)::uuid, s.schedule_id,
       (array['cancelled', 'proposed', 'entered-in-error'])[1 + row_number() over () %% 3], s.tenant_id,
       s.start_at, s.end_at, s.updated_at
from slots s where s.status = 'free' and md5(s.id::text) < '4' limit %(appointments)s;
insert into waitlist_entries (tenant_id, patient_id, appointment_type, created_by, priority)
select (%(tenants)s::uuid[])[1 + n %% 3], md5('p' || n)::uuid, 'ROUTINE', md5('x')::uuid, n %% 4
from generate_series(1, 3000) n;
insert into schedule_exceptions (tenant_id, schedule_id, start_at, end_at)
select (%(tenants)s::uuid[])[1 + n %% 3], md5('c' || n %% %(schedules)s)::uuid,
       timestamptz '2027-01-01Z' + n * interval '1 day', timestamptz '2027-01-02Z' + n * interval '1 day'
from generate_series(0, 2999) n
"""

# Kept elements of every twentieth row, as the API would write them: the rows and what is searched of them.
_KEPT = """
set session_replication_role = replica;
update slots set fhir = '{"comment": "x"}' where md5(id::text) < '0d';
update appointments set fhir = jsonb_build_object('participant', jsonb_build_array(
    jsonb_build_object('actor', jsonb_build_object('reference', 'Patient/' || patient_id), 'status', 'declined')))
where md5(id::text) < '0d';
set session_replication_role = origin
"""
_TOKENS = """
insert into search_tokens (tenant_id, parameter, system, value, id, kind)
select tenant_id, %s, %s, %s || ('x' || substr(md5(id::text), 3, 4))::bit(16)::int %% %s, id, %s
from {} where md5(id::text) < '0d'
"""
_AUDITED = """
insert into audit_events
    (tenant_id, recorded_at, interaction, action, status, type, entity, patient, client, subject, agent)
select (%s::uuid[])[1 + n %% 2], timestamptz '2026-01-01' + n * interval '1 minute', 'read', 'R',
       case when n %% 100 = 0 then 404 else 200 end, 'Appointment', 'Appointment/apt-' || md5('e' || n %% 5000)::uuid,
       'Patient/p' || n %% 5000, 'client-' || n %% 20, 'sub-' || n %% 500, 'Practitioner/' || n %% 500
from generate_series(1, 60000) n
"""


@pytest.fixture(scope="module")
def large(cluster: Cluster) -> Iterator[Database]:
    """The data, loaded while only the model's tables were there and then migrated, which is fast."""
    with cluster.fresh() as database:
        with database.connect_admin() as connection:
            connection.execute(migrations.available()[0].text.encode())
            indexes = connection.execute(
                """select indexrelid::regclass::text, pg_get_indexdef(indexrelid)
                   from pg_index join pg_class on pg_class.oid = indrelid
                   where relname in ('slots', 'appointments') and not indisprimary"""
            ).fetchall()
            for index, _ in indexes:
                connection.execute(f"drop index {index}".encode())
            values = {
                "tenants": TENANTS,
                "schedules": SCHEDULES,
                "slots": SLOTS,
                "appointments": APPOINTMENTS // 2,
            }
            with psycopg.ClientCursor(connection) as cursor:
                cursor.execute(_LOAD.encode(), values)
            for _, definition in indexes:
                connection.execute(definition.encode())
        migrations.migrate(database.admin_url, app_password=APP_PASSWORD)
        with database.connect_admin() as connection:
            connection.execute(_KEPT.encode())
            for resource in RESOURCES.values():
                for param in resource.params:
                    for table, kind, parameter, system, prefix, many in _entries(resource, param):
                        connection.execute(_TOKENS.format(table).encode(), [parameter, system, prefix, many, kind])
            connection.execute(_AUDITED.encode(), [TENANTS])
            connection.execute("vacuum analyze")
        yield database


KINDS = {"schedules": "c", "slots": "s", "schedule_exceptions": "e", "appointments": "a", "waitlist_entries": "w"}


def _entries(resource: Declared, param: Param) -> Iterator[tuple[str, str, str, str, str, int]]:
    """Which entries of the side table a parameter has: table, kind, parameter, system, value and how many values."""
    table = resource.sources[0].table
    entry, kind = f"{resource.type}.{param.name}", KINDS[table]
    binding = param.bindings[0]
    if isinstance(binding, References):
        if binding.entry:
            yield table, kind, f"{binding.entry}+", "Device", "v", 100
            yield table, kind, f"{binding.entry}:identifier", "http://s", "v", 500
    elif isinstance(param, ReferenceParam):
        yield table, kind, entry, (param.targets or ("Basic",))[0], "v", 500
    elif isinstance(binding, SideTable) and isinstance(param, TokenParam | UriParam):
        yield table, kind, entry, "http://s" if isinstance(param, TokenParam) else "", "v", 500


def _row(table: str) -> str:
    """The key of some row of the tenant's."""
    return f"(select id from {table} where tenant_id = '{TENANT}' order by id offset 7 limit 1)"


def _queries(resource: Declared, param: Param) -> list[str]:
    """Searches by a parameter as clients write them, made from its declaration."""
    code, binding = param.name, param.bindings[0]
    match param:
        case DateParam():
            day = "2026-01-20"
            return [
                f"{code}=ge{day}T00:00:00Z&{code}=lt2026-01-22T00:00:00Z",
                f"{code}={day}",
                f"{code}=ge{day}",
                f"{code}=lt{day}",
            ]
        case TokenParam() if isinstance(binding, IdColumn):
            return [f"{code}={{{resource.sources[0].table}}}"]
        case TokenParam() if param.codes:
            some = sorted(param.codes)
            return [f"{code}={each}" for each in some] + [f"{code}={','.join(some[:2])}"]
        case TokenParam() if isinstance(binding, SideTable):
            return [f"{code}=v7", f"{code}=http://s|v7", f"{code}=http://s|", f"{code}=v7,v8", f"{code}=nothing"]
        case TokenParam():
            return [f"{code}=ROUTINE", f"{code}=MRI", f"{code}=http://terminology.hl7.org/CodeSystem/v2-0276|WALKIN"]
        case ReferenceParam() if isinstance(binding, References) and binding.prefix:
            return [f"{code}={{{ {'sch': 'schedules', 'slt': 'slots'}[binding.prefix] }}}"]
        case ReferenceParam() if isinstance(binding, References):
            people = {"Patient": "p7", "Practitioner": "d7", "Location": "l7"}
            typed = [f"{code}={kind}/{{md5 {people[kind]}}}" for kind in people if kind in param.targets]
            bare = [f"{code}={{md5 {people[kind]}}}" for kind in people if kind in param.targets]
            return [*typed, *bare, f"{code}:identifier=http://s|v7", f"{code}=v7"]
        case ReferenceParam():
            return [f"{code}={(param.targets or ('Basic',))[0]}/v7", f"{code}=v7"]
        case _:
            return [f"{code}=v7"]


ADVERTISED = [
    f"{resource.type}?{query}"
    for resource in RESOURCES.values()
    for param in resource.params
    if param.bindings
    for query in _queries(resource, param)
]
TOGETHER = [
    "Slot?schedule={schedules}&status=free&start=ge2026-01-10T00:00:00Z&start=lt2026-01-24T00:00:00Z&_sort=start",
    "Slot?schedule={schedules}&status=free&start=2026-01-20",
    "Slot?schedule.actor=Practitioner/{md5 d3}&status=free&start=ge2026-01-10T00:00:00Z&start=lt2026-01-24T00:00:00Z",
    "Slot?schedule.actor=Practitioner/{md5 d3}&start=2026-01-20",
    "Slot?status=free&start=2026-01-20&appointment-type=ROUTINE",
    "Slot?status=free,busy-tentative&start=ge2026-01-20",
    "Slot?status=busy&_sort=-start",
    "Slot?schedule={schedules}&_sort=-start",
    "Slot?_sort=-_lastUpdated",
    "Slot?_sort=_id",
    "Slot?",
    "Appointment?patient=Patient/{md5 p7}&date=ge2026-01-10&status=booked",
    "Appointment?patient=Patient/{md5 p7}&_sort=-date",
    "Appointment?practitioner=Practitioner/{md5 d3}&date=ge2026-01-10T00:00:00Z&date=lt2026-01-24T00:00:00Z",
    "Appointment?location=Location/{md5 l7}&date=2026-01-20",
    "Appointment?slot.schedule={schedules}",
    "Appointment?slot.schedule.actor=Practitioner/{md5 d3}",
    "Appointment?date=2026-01-20&status=booked",
    "Appointment?_sort=-_lastUpdated",
    "Appointment?",
    "Schedule?actor=Practitioner/{md5 d3}",
    "Schedule?service-type=57&active=true",
    "AuditEvent?",
    "AuditEvent?date=ge2026-01-20",
    "AuditEvent?date=2026-01-20&_sort=date",
    "AuditEvent?_sort=-_lastUpdated",
    "AuditEvent?patient=Patient/p7",
    "AuditEvent?patient=p7&date=ge2026-01-20",
    "AuditEvent?entity=Appointment/apt-{md5 e7}",
    "AuditEvent?entity=Patient/p7",
    "AuditEvent?agent=Practitioner/7",
    "AuditEvent?agent:identifier=client-7",
    "AuditEvent?agent:identifier=sub-7&date=lt2026-01-20",
    "AuditEvent?outcome=4",
]


class Planner:
    """Runs a search's statement as the server's role, under the tenant, and reads what PostgreSQL did."""

    def __init__(self, database: Database) -> None:
        self.connection = database.connect_app(TENANT)
        self.connection.cursor_factory = psycopg.RawCursor
        self.connection.execute("set jit = off")
        self.names = {
            table: f"{prefix}-{self._one(_row(table))}"
            for table, prefix in (("schedules", "sch"), ("slots", "slt"), ("appointments", "apt"))
        }

    def _one(self, expression: str) -> str:
        row = self.connection.execute(f"select {expression}".encode()).fetchone()
        assert row is not None
        return str(row[0])

    def filled(self, url: str) -> str:
        """The URL with ids in place of the names in braces."""
        for table, fhir_id in self.names.items():
            url = url.replace(f"{{{table}}}", fhir_id)
        while "{md5 " in url:
            before, _, rest = url.partition("{md5 ")
            text, _, after = rest.partition("}")
            url = before + self._one(f"md5('{text}')::uuid") + after
        return url

    def plan(self, url: str, mode: str) -> tuple[str, dict[str, Any]]:
        """The statement of a search and its plan as it ran."""
        type_, _, query = self.filled(url).partition("?")
        pairs = [(key, value) for key, _, value in (part.partition("=") for part in query.split("&") if part)]
        found = Parser(RESOURCES, BASE, TENANT).query(SERVED[type_], pairs, strict=True)
        fragment = sql.search(found, TENANT).fragment
        assert fragment is not None, url
        return fragment.text, self.explained(fragment, mode)

    def explained(self, fragment: Fragment, mode: str) -> dict[str, Any]:
        """The plan of a statement as it ran."""
        values = ["null" if arg is None else f"'{arg.decode().replace(chr(39), chr(39) * 2)}'" for arg in fragment.args]
        self.connection.execute(f"set plan_cache_mode = {mode}".encode())
        self.connection.execute(f"prepare searched as {fragment.text}".encode())
        try:
            row = self.connection.execute(
                f"explain (analyze, format json) execute searched ({', '.join(values)})".encode()
            ).fetchone()
        finally:
            self.connection.execute("deallocate searched")
        assert row is not None
        plan: dict[str, Any] = row[0][0]["Plan"]
        return plan


@pytest.fixture(scope="module")
def planner(large: Database) -> Iterator[Planner]:
    """A connection as the server's role."""
    made = Planner(large)
    yield made
    made.connection.close()


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _faults(plan: dict[str, Any]) -> list[str]:
    """What is wrong with a plan: big tables that are read whole, filters that throw away more than they keep."""
    faults = []
    for node in _nodes(plan):
        if node["Node Type"].endswith("Seq Scan") and node.get("Relation Name") in BIG:
            faults.append(f"{node['Node Type']} on {node['Relation Name']}")
        kept = node["Actual Rows"] * node["Actual Loops"]
        for reason in ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck"):
            removed = node.get(reason, 0) * node["Actual Loops"]
            if removed > kept + SLACK:
                faults.append(f"{reason}: {removed}, kept {kept} ({node['Node Type']} {node.get('Relation Name', '')})")
    return faults


def test_the_data_are_large(planner: Planner) -> None:
    counted = planner.connection.execute(
        b"""select (select count(*) from slots), (select count(*) from appointments),
            (select count(*) from search_tokens)"""
    ).fetchone()
    assert counted is not None
    slots, appointments, tokens = counted
    assert slots == SCHEDULES * SLOTS / len(TENANTS)
    assert appointments > 10_000
    assert tokens > 10_000


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("url", [*ADVERTISED, *TOGETHER])
def test_a_search_runs_on_an_index(planner: Planner, url: str, mode: str) -> None:
    text, plan = planner.plan(url, mode)
    assert _faults(plan) == [], f"{url}\n{text}"


def _doctors(count: int) -> Criterion:
    """Any of so many practitioners, by the ids that the data have."""
    ids = [str(UUID(md5(f"d{number}".encode()).hexdigest())) for number in range(count)]
    return Criterion(RESOURCES["Schedule"].param["actor"], tuple(ReferenceValue("Practitioner", each) for each in ids))


_TYPE = Criterion(RESOURCES["Schedule"].param["service-type"], (TokenValue("", "57"),))
_RARE = Criterion(RESOURCES["Schedule"].param["service-type"], (TokenValue("http://s", "3"),))
_VISIT = Criterion(RESOURCES["Slot"].param["appointment-type"], (TokenValue(None, "CHECKUP"),))
_FROM, _TO = (interval(text) for text in ("2026-01-10T00:00:00Z", "2026-01-24T00:00:00Z"))
assert _FROM is not None
assert _TO is not None
FINDS = {
    "nobody named": Openings(_FROM, _TO),
    "a pool of fifty": Openings(_FROM, _TO, (_doctors(50),)),
    "one practitioner": Openings(_FROM, _TO, (_doctors(1),)),
    "a service type": Openings(_FROM, _TO, codes=(((_TYPE,), ()),)),
    "a rarer service type, or slots of a type": Openings(_FROM, _TO, codes=(((_RARE,), (_VISIT,)),)),
    "a pool, and slots of a type": Openings(_FROM, _TO, (_doctors(50),), (((_RARE,), (_VISIT,)),)),
    "two kinds": Openings(_FROM, _TO, (_doctors(10), _doctors(20))),
    "local days": Openings(interval("2026-01-10"), interval("2026-01-11"), (_doctors(50),)),  # type: ignore[arg-type]
    "a pool, by the rules for staff": Openings(_FROM, _TO, (_doctors(50),), caller="staff"),
    "a later page": Openings(_FROM, _TO, (_doctors(50),), after=("2026-01-20 08:00:00+00", TENANT)),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("wanted", FINDS.values(), ids=FINDS)
def test_find_is_one_statement_on_indexes(planner: Planner, wanted: Openings, mode: str) -> None:
    fragment = openings.statement(wanted, TENANT)
    plan = planner.explained(fragment, mode)
    assert plan["Actual Rows"] == wanted.count + 1
    faults = _faults(plan)
    if any(of_slot for _, of_slot in wanted.codes):
        # A schedule's free slots in the window are walked for those of the type.
        faults = [fault for fault in faults if not fault.endswith("(Index Scan slots)")]
    assert faults == [], fragment.text


@asynccontextmanager
async def _running(database: Database) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    app = create_app(load(database_url=database.app_url, auth="open"))
    await app.lanes.open()
    try:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1/fhir/{TENANT}/") as http:
            yield app, http
    finally:
        await app.lanes.close()


Request = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


@pytest.mark.parametrize(
    ("what", "trips"),
    [
        ("a read", 1),
        ("a search", 1),
        ("a search by a chain", 1),
        ("a search of two tables", 1),
        ("a page", 1),
        ("a booking", 1),
        ("an update", 1),
        ("a cancellation", 1),
        ("a search with an include", 2),
        ("a search with a total", 2),
        ("a refused body", 0),
        ("metadata", 0),
    ],
)
def test_a_request_takes_round_trips(database: Database, what: str, trips: int) -> None:
    async def count() -> int:
        async with _running(database) as (app, http):
            of = (
                await http.post(
                    "Schedule", json={"resourceType": "Schedule", "actor": [{"reference": "Practitioner/1"}]}
                )
            ).json()
            slots: list[Resource] = []
            for hour in range(4):
                body = {"resourceType": "Slot", "schedule": {"reference": name(of)}, "status": "free"}
                body |= {
                    "start": f"20{len(what) + 10}-01-01T0{hour}:00:00Z",
                    "end": f"20{len(what) + 10}-01-01T0{hour}:15:00Z",
                }
                slots.append((await http.post("Slot", json=body)).json())
            made = (await http.post("Appointment", json=appointment(slots[0]))).json()
            first = (await http.get(f"Slot?schedule={of['id']}&_count=1")).json()
            following = next(link["url"] for link in first["link"] if link["relation"] == "next")
            requests: dict[str, Request] = {
                "a read": lambda http: http.get(name(made)),
                "a search": lambda http: http.get(f"Slot?schedule={of['id']}&status=free&start=ge2010&_count=2"),
                "a search by a chain": lambda http: http.get("Slot?schedule.actor=Practitioner/1&status=free&_count=2"),
                "a search of two tables": lambda http: http.get(f"Appointment?patient={PATIENT}"),
                "a page": lambda http: http.get(following),
                "a booking": lambda http: http.post("Appointment", json=appointment(*slots[1:3])),
                "an update": lambda http: http.put(name(made), json={**made, "description": "x"}),
                "a cancellation": lambda http: http.put(name(made), json={**made, "status": "cancelled"}),
                "a search with an include": lambda http: http.get(f"Slot?schedule={of['id']}&_include=Slot:schedule"),
                "a search with a total": lambda http: http.get(f"Slot?schedule={of['id']}&_total=accurate&_count=1"),
                "a refused body": lambda http: http.post("Appointment", json={"resourceType": "Appointment"}),
                "metadata": lambda http: http.get("metadata"),
            }
            before = app.lanes.round_trips
            answer = await requests[what](http)
            assert answer.status_code in ((400,) if trips == 0 and what != "metadata" else (200, 201)), answer.text
            return app.lanes.round_trips - before

    assert asyncio.run(count()) == trips
