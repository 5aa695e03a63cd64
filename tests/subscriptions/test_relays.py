"""Everything at once: every program writes, relays are killed while they send, and the events are exactly those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from clinic import EXTENSION, Clinic, Resource, as_resource, name, row_id
from db import Database
from fhir_sched.settings import PREFIX
from server import Server
from subscriber import WAIT_S, Subscriber, events, following

_RULE = [
    {"url": "daysOfWeek", "valueCode": "mon"}, {"url": "startTime", "valueTime": "09:00:00"},
    {"url": "endTime", "valueTime": "12:00:00"}, {"url": "slotMinutes", "valuePositiveInt": 60},
]  # fmt: skip


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[Server]:
    """A server that sends nothing itself."""
    with Server(database.app_url, allow_private_endpoints="true", relay="off") as running:
        yield running


def relaying(database: Database) -> Server:
    """A server whose relay works; nobody asks it anything."""
    return Server(database.app_url, allow_private_endpoints="true")


def killed(server: Server) -> None:
    """End the process as nobody can prevent."""
    assert server._process is not None
    os.kill(server.pid, signal.SIGKILL)
    server._process.wait(10)
    server.client.close()
    server._process.communicate()


def test_a_day_of_a_clinic_is_heard_exactly_in_order_and_once_more_after_a_kill(
    clinic: Clinic, database: Database, subscriber: Subscriber
) -> None:
    relay = relaying(database)
    relay.start()
    with Subscriber().running() as freed, Subscriber().running() as changed:
        following(clinic, subscriber, "appointment-changed")
        following(clinic, freed, "slot-freed")
        schedule = clinic.schedule(extension=[{"url": EXTENSION + "schedule-availability", "extension": _RULE}])
        following(clinic, changed, "slot-changed", f"Slot?schedule={name(schedule)}")
        generated = clinic.http.post(f"{name(schedule)}/$generate-slots?start=2030-05-06&end=2030-05-06")
        assert generated.status_code == 200, generated.text
        slots = clinic.matches(f"Slot?schedule={name(schedule)}&_sort=start")
        assert changed.events(1) == [{"number": 1, "focus": name(schedule)}]

        subscriber.hang = True
        first = clinic.booked(slots[0])  # by API
        hung = subscriber.posted(1, "event-notification")
        killed(relay)
        moved = _rescheduled(clinic, first, slots[1])
        second = _booked_by_sql(clinic, slots[2])
        clinic.sql("update appointments set status = 'cancelled' where id = %s", second)
        assert clinic.put(moved | {"status": "cancelled"}).status_code == 200
        subscriber.hang = False

        with relaying(database):
            expected = [
                (1, name(first)), (1, name(first)), (2, name(first)), (3, f"Appointment/apt-{second}"),
                (4, f"Appointment/apt-{second}"), (5, name(first)),
            ]  # fmt: skip
            assert [(each["number"], each["focus"]) for each in subscriber.events(6)] == expected
            assert [post.body for post in hung] != []
            assert [each["focus"] for each in freed.distinct(3)] == [name(slots[0]), name(slots[2]), name(slots[1])]
            wanted = [schedule, slots[0], *_moves(slots), slots[2], slots[2], slots[1]]
            told = changed.distinct(len(wanted))
            assert [each["number"] for each in told] == list(range(1, len(wanted) + 1))
            assert sorted(each["focus"] for each in told) == sorted(map(name, wanted))


def _rescheduled(clinic: Clinic, booked: Resource, to: Resource) -> Resource:
    changed = booked | {"slot": [{"reference": name(to)}], "start": to["start"], "end": to["end"]}
    return as_resource(clinic.put(changed))


def _moves(slots: list[Resource]) -> tuple[Resource, Resource]:
    """A reschedule frees one slot and takes another; in which order is told by the order of their ids."""
    return slots[0], slots[1]


def _booked_by_sql(clinic: Clinic, slot: Resource) -> str:
    ((made,),) = clinic.sql(
        "insert into appointments (tenant_id, slot_id, patient_id, start_at, end_at, appointment_type, created_by)"
        " values (%s, %s, gen_random_uuid(), %s, %s, 'ROUTINE', gen_random_uuid()) returning id",
        clinic.tenant, row_id(slot), slot["start"], slot["end"],
    )  # fmt: skip
    return str(made)


def test_several_relays_send_each_event_once_and_in_order(
    clinic: Clinic, database: Database, subscriber: Subscriber
) -> None:
    with relaying(database), relaying(database):
        following(clinic, subscriber, "appointment-changed")
        for number in range(20):
            hour, minute = divmod(number * 30, 60)
            clinic.booked(
                start=f"2030-05-06T{hour:02}:{minute:02}:00Z", end=f"2030-05-06T{hour:02}:{minute + 15:02}:00Z"
            )
        assert [each["number"] for each in subscriber.events(20)] == list(range(1, 21))
        told = clinic.matches("Appointment?_sort=date")
        assert sorted(each["focus"] for each in subscriber.heard()) == sorted(map(name, told))


def test_a_transaction_that_began_before_the_subscription_and_ended_after_it_is_heard_of(
    clinic: Clinic, database: Database, subscriber: Subscriber
) -> None:
    booked = clinic.booked()
    other = clinic.booked(start="2026-06-02T11:00:00Z", end="2026-06-02T11:15:00Z")
    with relaying(database), database.connect_admin() as slow:
        with slow.transaction():
            slow.execute("update appointments set reason = 'late' where id = %s", [row_id(booked)])
            clinic.sql("update appointments set reason = 'in time' where id = %s", row_id(other))
            following(clinic, subscriber, "appointment-changed")
        assert subscriber.events(1) == [{"number": 1, "focus": name(booked)}]


def test_a_relay_in_a_process_of_its_own_tells_subscribers_without_any_sink(
    clinic: Clinic, database: Database, subscriber: Subscriber
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {f"{PREFIX}DATABASE_URL": database.app_url, f"{PREFIX}AUTH": "open"}
    command = [sys.executable, "-c", "from fhir_sched.cli import main; main()", "relay", "--allow-private"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as relay:
        following(clinic, subscriber, "appointment-changed")
        booked = clinic.booked()
        assert subscriber.events(1) == [{"number": 1, "focus": name(booked)}]
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(15) == 0


def test_events_are_kept_for_as_long_as_the_settings_say(
    clinic: Clinic, database: Database, subscriber: Subscriber
) -> None:
    with relaying(database):
        made = following(clinic, subscriber, "appointment-changed")
        clinic.booked()
        kept = clinic.booked(start="2026-06-02T11:00:00Z", end="2026-06-02T11:15:00Z")
        subscriber.events(2)
    clinic.sql(
        "update subscription_events set occurred_at = now() - interval '31 days' where number = 1 and tenant_id = %s",
        clinic.tenant,
    )
    # more than are removed at once
    clinic.sql(
        """
        insert into subscription_events
            (tenant_id, subscription_id, number, occurred_at, outbox_id, action, table_name, id, version)
        select tenant_id, subscription_id, -n, occurred_at, gen_random_uuid(), action, table_name, id, version
        from subscription_events, generate_series(1, 500) n where number = 1 and tenant_id = %s
        """,
        clinic.tenant,
    )
    with relaying(database):
        end = time.monotonic() + WAIT_S
        kept_rows = "select count(*) from subscription_events where tenant_id = %s"
        while clinic.sql(kept_rows, clinic.tenant) != [(1,)]:
            assert time.monotonic() < end
            time.sleep(0.05)
    found = events(clinic.read(f"{name(made)}/$events"))
    assert found == [{"number": 2, "focus": name(kept)}]
