"""Row-level security when the application forgets: every statement that the product sends, run as another tenant.

The statements are collected where the interactions hand them to the database, so a new one is in here by itself. Each
is run under a second tenant's setting, as it is (with the first tenant's id) and without its tenant clause: it finds
nothing, changes nothing, or is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.pq import DiagnosticField, ExecStatus

from clinic import EXTENSION, appointment, name, schedule, slot
from db import Database
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import SESSION_SQL, Lanes
from fhir_sched.db.limits import Limits
from fhir_sched.db.rows import Rows
from fhir_sched.db.work import Alone, Work
from fhir_sched.http import preconditions
from fhir_sched.interactions import entries
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Condition, Context
from fhir_sched.interactions.dispatch import perform
from fhir_sched.interactions.idempotent import once
from fhir_sched.interactions.transaction import transaction
from fhir_sched.outcome import FhirError
from fhir_sched.search.values import form
from fhir_sched.security.caller import OPEN, Caller
from fhir_sched.security.scopes import parse
from fhir_sched.settings import load

Answer = TypeVar("Answer")
Resource = dict[str, Any]
PATIENT = f"Patient/{uuid4()}"
DOCTOR = f"Practitioner/{uuid4()}"
OWN = Caller(str(uuid4()), parse("patient/*.cruds"), patient=PATIENT)
FORGOTTEN = re.compile(r"\b(?:\w+\.)?tenant_id = \$1::uuid")
TABLES = (
    "schedules", "schedule_exceptions", "slots", "appointments", "waitlist_entries", "outbox", "history",
    "search_tokens", "provider_times", "extra_slots", "idempotent_requests",
)  # fmt: skip
ADVISORY = "select pg_advisory_xact_lock("
"""A lock on a number touches no row; it alone answers whoever asks."""

SEARCHES = {
    "Slot": [
        "", "status=free", "start=ge2026-06-01", "start=2026-06-02", "schedule=Schedule/{schedule}&start=ge2026-06-01",
        "schedule.actor=Practitioner/1", "schedule:Schedule.active=true", "service-type=a|b", "identifier=urn:x|1",
        "_has:Appointment:slot:status=booked", "_id={slot}", "_lastUpdated=gt2020-01-01", "status:not=busy",
        "appointment-type=x", "_total=accurate", "_total=estimate&_count=1", "_summary=count", "_tag=a|b",
        "_include=Slot:schedule&_revinclude=Appointment:slot", "_sort=-start", "_sort=status,-start",
    ],
    "Schedule": [
        "", "actor=" + DOCTOR, "active=true", "date=2026-06", "date=ge2026-06-02T09:00", "identifier=1",
        "_revinclude=Slot:schedule&_revinclude:iterate=Appointment:slot", "_has:Slot:schedule:status=free",
        "_sort=date",
    ],
    "Appointment": [
        "", "patient=" + PATIENT, "actor=" + DOCTOR, "practitioner=" + DOCTOR, "location=Location/1", "status=booked",
        "date=ge2026-06-01", "slot=Slot/{slot}", "slot.status=busy", "slot.schedule.actor=" + DOCTOR,
        "identifier=urn:x|1", "part-status=accepted", "reason-code=x", "_id={appointment}", "_sort=-date,status",
        "_include=Appointment:slot&_include:iterate=Slot:schedule", "status=waitlist", "patient:missing=true",
    ],
}  # fmt: skip


class Noting:
    """Work that notes each statement."""

    def __init__(self, work: Work, noted: dict[str, Fragment]) -> None:
        self._work, self._noted = work, noted

    async def read(self, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """See Work."""
        self._note(fragments)
        return await self._work.read(*fragments, slow=slow)

    async def write(self, *fragments: Fragment) -> tuple[Rows, ...]:
        """See Work."""
        self._note(fragments)
        return await self._work.write(*fragments)

    async def atomically(self, step: Callable[[Work], Awaitable[Answer]]) -> Answer:
        """See Work."""
        return await self._work.atomically(lambda inside: step(Noting(inside, self._noted)))

    def _note(self, fragments: tuple[Fragment, ...]) -> None:
        for fragment in fragments:
            self._noted.setdefault(fragment.text, fragment)


class Tour:
    """Every interaction once, for one tenant and two callers; `noted` are the statements by text."""

    def __init__(self, lanes: Lanes, tenant: UUID) -> None:
        self.noted: dict[str, Fragment] = {}
        work = Noting(Alone(lanes, str(tenant)), self.noted)
        base = f"http://clinic.example/fhir/{tenant}"
        self.context = Context(str(tenant), base, work, OPEN, load())
        self.own = Context(str(tenant), base, work, OWN, load())

    async def ask(self, method: str, path: str, body: Resource | None = None, **given: Any) -> Resource:
        """The document of the answer."""
        return await self._ask(self.context, method, path, body, **given)

    async def _ask(self, context: Context, method: str, url: str, body: Resource | None, **given: Any) -> Resource:
        path, _, query = url.partition("?")
        call = Call(method, path.split("/") if path else [], form(query), lambda: body or {}, **given)
        answer = await perform(context, call)
        found: Resource = json.loads(answer.body) if answer.body else {}
        return found

    async def refused(self, method: str, path: str, body: Resource | None = None, **given: Any) -> None:
        """An interaction that has to be refused."""
        with pytest.raises(FhirError):
            await self.ask(method, path, body, **given)

    async def go(self) -> None:
        """All of it."""
        of = await self.ask("POST", "Schedule", schedule(serviceType=_concept(), actor=[{"reference": DOCTOR}]))
        slots = [
            await self.ask("POST", "Slot", slot(of, f"2026-06-02T{hour}:00:00Z", 60, serviceType=_concept()))
            for hour in (10, 11, 12, 13)
        ]
        closed = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "holiday"}]
        shut = slot(of, "2026-06-03T10:00:00Z", 60, status="busy-unavailable", extension=closed)
        exception = await self.ask("POST", "Slot", shut)
        await self.ask("POST", "Slot", {**shut, "start": "2026-06-04T10:00:00Z", "end": "2026-06-04T11:00:00Z"})
        unused = await self.ask("POST", "Schedule", schedule())
        await self.ask("POST", f"{name(of)}/$generate-slots?start=2026-06-02&end=2026-06-03", bodyless=True)
        booked = await self.ask("POST", "Appointment", appointment(*slots[:2], patient=PATIENT, doctor=DOCTOR))
        waiting = await self.ask("POST", "Appointment", appointment(status="waitlist", patient=PATIENT))
        match = Condition(("1",))
        for each in (of, slots[3], booked, waiting, exception):
            await self.ask("GET", name(each))
            changed = await self.ask("PUT", name(each), {**each, "comment": "x"}, match=match)
            await self.refused("PUT", name(each), changed, match=match)
            await self.ask("PUT", name(each), changed)
            patch = [{"op": "add", "path": "/comment", "value": "y"}]
            await self.ask("PATCH", name(each), json_patch=lambda patch=patch: patch)
            await self.ask("GET", f"{name(each)}/_history")
            await self.ask("GET", f"{name(each)}/_history?_since=2020-01-01T00:00:00Z&_at=2026&_count=1")
            await self.ask("GET", f"{name(each)}/_history/1")
        for kind in SEARCHES:
            await self.ask("GET", f"{kind}/_history")
        await self.ask("GET", "_history?_count=2")
        await self.ask("GET", "?_type=Slot,Appointment")
        await self.ask("GET", f"{PATIENT}/Appointment")
        await self._conditional(slots[2])
        await self._together(slots[2])
        await self._searches(of, slots[0], booked)
        await self._as_patient(slots[3], booked)
        for each in (waiting, exception, slots[3], unused):
            await self.ask("DELETE", name(each), match=Condition(()))
            await self.refused("GET", name(each))
        await self.ask("PUT", name(waiting), waiting)
        await self.refused("GET", "Slot/slt-" + str(uuid4()))

    async def _searches(self, of: Resource, one: Resource, booked: Resource) -> None:
        for kind, queries in SEARCHES.items():
            for query in queries:
                filled = query.format(schedule=of["id"], slot=one["id"], appointment=booked["id"])
                page = await self.ask("GET", f"{kind}?{filled}" if filled else kind)
                following = [link["url"] for link in page["link"] if link["relation"] in ("next", "previous")]
                for url in following:
                    await self.ask("GET", url.removeprefix(self.context.base + "/"))

    async def _conditional(self, free: Resource) -> None:
        made = appointment(patient=PATIENT, identifier=[{"system": "urn:x", "value": "1"}], status="proposed")
        for _ in range(2):
            made = await self.ask("POST", "Appointment", made, none_exist="identifier=urn:x|1")
        await self.ask("PUT", "Appointment?identifier=urn:x|1", made)
        await self.ask("DELETE", "Appointment?identifier=urn:x|1")
        patch = [{"op": "add", "path": "/comment", "value": "z"}]
        await self.ask("PATCH", f"Slot?_id={free['id']}", json_patch=lambda: patch)

    async def _together(self, free: Resource) -> None:
        current = await self.ask("GET", name(free))
        unchanged = {"method": "PUT", "url": name(free), "ifMatch": f'W/"{current["meta"]["versionId"]}"'}
        listed = [
            {"resource": {**current, "comment": "t"}, "request": unchanged},
            {"resource": appointment(patient=PATIENT), "request": {"method": "POST", "url": "Appointment"}},
        ]  # fmt: skip
        manner = entries.Manner(preconditions.versions, strict=False, wanted="")
        for _ in range(2):
            await once(self.context, "key", "mark", lambda inside: transaction(inside, listed, manner))

    async def _as_patient(self, free: Resource, booked: Resource) -> None:
        """The same statements within the limits of a patient's token."""
        for path in (name(booked), f"{name(booked)}/_history", f"{name(booked)}/_history/1", "Appointment", "Slot"):
            await self._ask(self.own, "GET", path, None)
        made = await self._ask(self.own, "POST", "Appointment", appointment(free, patient=PATIENT))
        await self._ask(self.own, "PUT", name(made), {**made, "status": "cancelled"})
        await self._ask(self.own, "DELETE", name(made), None)


def _concept() -> list[Resource]:
    return [{"coding": [{"system": "a", "code": "b"}]}]


@pytest.fixture(scope="module")
def owner() -> UUID:
    """The tenant whose statements are repeated."""
    return uuid4()


@pytest.fixture(scope="module")
def noted(database: Database, owner: UUID) -> dict[str, Fragment]:
    """Every statement of the tour."""

    async def scene() -> dict[str, Fragment]:
        lanes = Lanes(database.app_url, Limits(shared=1, exclusive=2))
        await lanes.open()
        try:
            tour = Tour(lanes, owner)
            await tour.go()
            return tour.noted
        finally:
            await lanes.close()

    return asyncio.run(scene())


@pytest.fixture
def stranger(database: Database) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The server's role, in which every transaction belongs to a tenant without a row."""
    with database.connect_app() as connection:
        yield connection


def _rows_of(database: Database, tenant: UUID) -> dict[str, list[str]]:
    with database.connect_admin() as admin:
        return {
            table: sorted(
                str(row[0])
                for row in admin.execute(f"select to_jsonb(t) from {table} t where tenant_id = %s".encode(), [tenant])
            )
            for table in TABLES
        }


def _run(connection: psycopg.Connection[tuple[Any, ...]], tenant: UUID, fragment: Fragment) -> str:
    """What a statement does under a tenant, committed: `rows n`, `counted n` or `refused SQLSTATE`."""
    pgconn = connection.pgconn
    pgconn.exec_(b"begin")
    pgconn.exec_params(SESSION_SQL.encode(), [str(tenant).encode()])
    result = pgconn.exec_params(fragment.text.encode(), list(fragment.args))
    pgconn.exec_(b"commit")
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        return f"refused {(result.error_field(DiagnosticField.SQLSTATE) or b'').decode()}"
    if fragment.text.startswith("select count(*)"):
        return f"counted {(result.get_value(0, 0) or b'').decode()}"
    return f"rows {max(result.ntuples, result.command_tuples or 0)}"


def test_the_tour_saw_each_kind_of_statement(noted: dict[str, Fragment]) -> None:
    texts = "\n".join(noted)
    for table in ("schedules", "schedule_exceptions", "slots", "appointments", "waitlist_entries"):
        for verb in (f"insert into {table} ", f"update {table} ", f"from {table} ", f"delete from {table} "):
            assert verb in texts, verb
    for part in (
        "from history",
        "search_tokens",
        "idempotent_requests",
        "union all",
        "for update",
        ADVISORY,
        "count(*)",
    ):
        assert part in texts
    assert len(noted) > 100


def test_no_statement_reaches_a_row_of_another_tenant(
    database: Database, owner: UUID, noted: dict[str, Fragment], stranger: psycopg.Connection[tuple[Any, ...]]
) -> None:
    before = _rows_of(database, owner)
    assert all(before.values())
    nobody = uuid4()
    for text, fragment in noted.items():
        if text.startswith(ADVISORY):
            continue
        assert fragment.args[0] == str(owner).encode(), text
        ways = [fragment]
        # A function is handed the tenant and has no clause that could be forgotten.
        if not text.lstrip().startswith("insert") and "fhir_sched_generate_slots(" not in text:
            assert FORGOTTEN.search(text), text
            ways.append(Fragment(FORGOTTEN.sub("$1::uuid is not null", text), fragment.args))
        for each in ways:
            # 23503: the schedule of a new slot is not there for a stranger, which is told before anything else
            refusals = ("rows 0", "counted 0", "refused 42501", "refused 23503")
            assert _run(stranger, nobody, each) in refusals, each.text
            assert _run(stranger, owner, Fragment("select 1 where false")) == "rows 0"
    assert _rows_of(database, owner) == before
    assert not any(_rows_of(database, nobody).values())


def test_the_same_statements_do_reach_the_rows_of_their_tenant(
    owner: UUID, noted: dict[str, Fragment], stranger: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """Without the tenant's own setting nothing above would be proven."""
    reads = [
        each for text, each in noted.items() if text.lstrip().startswith(("select", "(select")) and ADVISORY not in text
    ]
    found = [_run(stranger, owner, each) for each in reads]
    assert sum(each not in ("rows 0", "counted 0") for each in found) > len(found) // 3
