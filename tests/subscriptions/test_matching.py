"""Who is told of an event: as many statements as there are kinds of filters, however many subscriptions there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from clinic import PATIENT, Clinic, name
from db import Database
from fhir_sched.events import outbox
from fhir_sched.events.session import connect, under
from fhir_sched.search.among import among
from fhir_sched.subscriptions import matching
from fhir_sched.subscriptions.fanout import Fanout
from server import Server
from subscriber import Resource, Subscriber

MANY = 300
_COPY = """
insert into subscriptions (tenant_id, id, criteria, caller, base, fhir)
select s.tenant_id, %s, s.criteria, s.caller, s.base,
       jsonb_set(s.fhir, '{_criteria,extension,0,valueString}', to_jsonb(%s::text))
from subscriptions s where s.tenant_id = %s and s.id = %s
"""


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[Server]:
    """A server that tells nobody anything itself."""
    with Server(database.app_url, allow_private_endpoints="true", relay="off") as running:
        yield running


def copies(clinic: Clinic, of: Resource, filters: Sequence[str]) -> list[str]:
    """The ids of subscriptions like that one with these filters."""
    ids = [str(uuid4()) for _ in filters]
    with clinic.database.connect_admin() as connection, connection.cursor() as cursor:
        values = [(row_id, text, clinic.tenant, of["id"][4:]) for row_id, text in zip(ids, filters, strict=True)]
        cursor.executemany(_COPY, values)
    return ids


def fanned(clinic: Clinic, fanout: Fanout | None = None) -> None:
    """Tell all there is to tell."""

    async def work() -> None:
        tenant, telling = str(clinic.tenant), fanout or Fanout(tokens=False)
        async with await connect(clinic.database.app_url) as connection:
            since = (await telling.tenants(connection))[tenant]
            async with under(connection, tenant):
                events = await outbox.take(connection, tenant, 200, outbox.TO_FAN_OUT, since=since, payloads=True)
                await telling.fan_out(connection, tenant, events)
                await outbox.mark(connection, tenant, [event.id for event in events], "fanned")
            assert tenant not in await telling.tenants(connection)

    asyncio.run(work())


def heard(clinic: Clinic) -> dict[str, int]:
    """How many events each subscription has, by its id, without those that have none."""
    rows = clinic.sql("select id::text, events from subscriptions where tenant_id = %s and events > 0", clinic.tenant)
    return {row[0]: row[1] for row in rows}


def test_three_hundred_filters_of_one_kind_cost_one_statement(
    clinic: Clinic, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = clinic.create(subscriber.subscription("slot-changed", f"Slot?schedule=Schedule/sch-{uuid4()}&status=free"))
    ours = clinic.schedule()
    others = [f"Schedule/sch-{uuid4()}" for _ in range(MANY)]
    strange = 'a"{b}'
    filters = [f"Slot?schedule={each}&status=free" for each in [*others, name(ours)]]
    filters += [
        "Slot?status=busy",
        f"Slot?appointment-type={quote(strange)}",
        "Slot?schedule.actor=Practitioner/nobody",
    ]
    ids = copies(clinic, first, filters)
    clinic.slot(ours, "2031-01-01T09:00:00Z")
    clinic.slot(ours, "2031-01-01T10:00:00Z", appointmentType={"coding": [{"code": strange}]})
    asked: list[str] = []
    execute = psycopg.AsyncRawCursor.execute

    async def counted(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        asked.append(query.decode())
        return await execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.AsyncRawCursor, "execute", counted)
    fanned(clinic)
    assert heard(clinic) == {ids[MANY]: 2, ids[MANY + 2]: 1}
    assert len([text for text in asked if "cross join lateral" in text]) == 4, asked
    assert len(asked) < 20


@pytest.mark.parametrize(
    "error",
    [
        psycopg.DataError,
        psycopg.errors.QueryCanceled,
        psycopg.errors.TooManyColumns,
        psycopg.errors.StatementTooComplex,
    ],
)
def test_a_filter_that_cannot_be_evaluated_holds_up_nobody_else(
    clinic: Clinic, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
) -> None:
    first = clinic.create(subscriber.subscription("appointment-changed", f"Appointment?patient={PATIENT}"))
    copies(clinic, first, [f"Appointment?status={each}" for each in ("booked", "cancelled", "noshow")])

    def failing(resource: Any, source: Any, wanted: Any, versions: Any, tenant: str) -> Any:
        if any("noshow" in str(condition.values) for conditions in wanted for condition in conditions):
            raise error
        return among(resource, source, wanted, versions, tenant)

    monkeypatch.setattr(matching, "among", failing)
    clinic.booked()
    fanned(clinic)
    assert len(heard(clinic)) == 2


def test_a_filter_that_is_too_long_to_be_evaluated_is_refused_and_one_that_is_stored_is_left_out(
    clinic: Clinic, subscriber: Subscriber
) -> None:
    """Such a one came in before it was refused, and then stopped the relay for everybody."""
    long = "Appointment?" + "&".join(["status=booked"] * 3000)
    answer = clinic.http.post("Subscription", json=subscriber.subscription("appointment-changed", long))
    assert answer.status_code == 422, answer.text
    assert "100 conditions" in answer.text
    first = clinic.create(subscriber.subscription("appointment-changed", "Appointment?status=booked"))
    copies(clinic, first, [long])
    clinic.booked()
    fanned(clinic)
    assert heard(clinic) == {first["id"][4:]: 1}


def test_a_filter_with_a_character_that_no_text_may_hold_is_refused(clinic: Clinic, subscriber: Subscriber) -> None:
    asked = subscriber.subscription("appointment-changed", "Appointment?appointment-type=a%00b")
    answer = clinic.http.post("Subscription", json=asked)
    assert answer.status_code == 422, answer.text


def test_a_changed_filter_counts_from_then_on(clinic: Clinic, subscriber: Subscriber) -> None:
    asked = subscriber.subscription("appointment-changed", "Appointment?status=cancelled")
    made = clinic.create(asked)
    telling = Fanout(tokens=False)
    clinic.booked()
    fanned(clinic, telling)
    assert heard(clinic) == {}
    asked["_criteria"]["extension"][0]["valueString"] = "Appointment?status=booked"
    assert clinic.put(asked | {"id": made["id"]}).status_code == 200
    clinic.booked(start="2026-06-02T10:00:00Z", end="2026-06-02T10:15:00Z")
    fanned(clinic, telling)
    assert heard(clinic) == {made["id"][4:]: 1}
