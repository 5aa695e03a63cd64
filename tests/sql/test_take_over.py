"""A database that other programs have filled is taken over: rows are kept, and what breaks a rule is listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from db import APP_PASSWORD, Cluster, Database
from fhir_sched.db import migrations
from programs import Clinic, at, outcome


@pytest.fixture
def filled(cluster: Cluster) -> Iterator[Clinic]:
    """The model's tables alone, as another program made them."""
    with cluster.fresh() as database:
        clinic = Clinic(database, uuid4())
        model = migrations.available()[0]
        clinic.operator.execute(model.text.encode())
        yield clinic
        clinic.leave()


def take_over(database: Database, **options: bool) -> None:
    migrations.migrate(database.admin_url, app_password=APP_PASSWORD, **options)  # type: ignore[arg-type]


def test_rows_are_kept_and_brought_under_the_rules(filled: Clinic) -> None:
    schedule = filled.schedule(timezone="Asia/Tokyo", service_types=["x"])
    occupied, closed, free = (filled.slot(schedule, start) for start in (0, 20, 40))
    provider = uuid4()
    booked = filled.book(occupied, provider_id=provider, start_at=at(0), end_at=at(20))
    filled.close(schedule, 20, 40)
    take_over(filled.database)
    assert filled.get("schedules", schedule, "zone") == "Asia/Tokyo"
    assert filled.get("appointments", booked, "schedule_id, version") == (schedule, 1)
    assert [filled.get("slots", slot, "status, excepted, version") for slot in (occupied, closed, free)] == [
        ("busy", False, 2), ("blocked", True, 2), ("free", False, 1),
    ]  # fmt: skip
    assert filled.rows("select value from search_tokens where id = %s", schedule) == [("x",)]
    again = outcome(lambda: filled.book(None, provider_id=provider, start_at=at(10), end_at=at(30)))
    assert again == "23P01 provider_times_no_overlap"


def offenders(filled: Clinic) -> tuple[UUID, list[UUID], UUID, list[UUID]]:
    schedule, provider = filled.schedule(), uuid4()
    slots = [filled.slot(schedule, start) for start in (0, 10)]
    booked = [filled.book(None, provider_id=provider, start_at=at(start), end_at=at(start + 20)) for start in (0, 10)]
    return schedule, slots, provider, booked


def test_rows_that_overlap_stop_it_with_their_ids_and_nothing_is_changed(filled: Clinic) -> None:
    _, slots, _, booked = offenders(filled)
    stranger = filled.book(filled.slot(filled.schedule(), 0), tenant_id=uuid4())
    with pytest.raises(migrations.MigrationError) as caught:
        take_over(filled.database)
    for row_id in (*slots, *booked, stranger):
        assert str(row_id) in str(caught.value)
    columns = filled.rows("select column_name from information_schema.columns where table_name = 'slots'")
    assert ("fhir",) not in columns


def test_grandfathered_rows_stay_and_no_new_one_joins_them(filled: Clinic) -> None:
    schedule, slots, provider, booked = offenders(filled)
    foreign_slot = filled.slot(filled.schedule(), 0)
    stranger = filled.book(foreign_slot, tenant_id=uuid4())
    take_over(filled.database, grandfather=True)
    assert [filled.get("slots", slot) for slot in slots] == ["free", "free"]
    assert outcome(lambda: filled.slot(schedule, 15)) == "23P01 slots_no_overlap"
    third: dict[str, Any] = {"provider_id": provider, "start_at": at(15), "end_at": at(35)}
    assert outcome(lambda: filled.book(None, **third)) == "23P01 provider_times_no_overlap"
    filled.operator.execute("update appointments set reason = 'x' where id = any(%s)", [[*booked, stranger]])
    assert outcome(lambda: filled.book(slots[0])) == "ok"
    move = "update slots set start_at = start_at + interval '1 minute' where id = %s"
    assert outcome(lambda: filled.operator.execute(move, [slots[0]])) == "23P01 slots_no_overlap"
    assert outcome(lambda: filled.book(foreign_slot, tenant_id=uuid4())) == "23503 appointments_slot_fk"


def test_an_owner_that_is_no_superuser_may_migrate_and_the_triggers_work(cluster: Cluster) -> None:
    with cluster.fresh() as database:
        owner = f"owner_{uuid4().hex[:8]}"
        with database.connect_admin() as admin:
            admin.execute(f"create role {owner} login createrole password 'for-tests'")
            admin.execute(f"alter database {admin.info.dbname} owner to {owner}")
            if admin.info.server_version >= 160000:
                # The roles are of the cluster and another owner made them: whoever did must let this one in.
                admin.execute(
                    f"grant fhir_sched_trigger, fhir_sched_app to {owner} with admin true, inherit false, set false"
                )
        url = psycopg.conninfo.make_conninfo(database.admin_url, user=owner, password="for-tests")
        migrations.migrate(url, app_password=None)
        clinic = Clinic(database, uuid4())
        slot = clinic.slot(clinic.schedule(), 0)
        clinic.book(slot)
        assert clinic.get("slots", slot) == "busy"
        assert clinic.rows("select pg_has_role(%s, 'fhir_sched_trigger', 'usage')", owner) == [(False,)]
        clinic.leave()
        with database.connect_admin() as admin:
            admin.execute(f"reassign owned by {owner} to current_user")
            admin.execute(f"drop owned by {owner}")
            admin.execute(f"drop role {owner}")


def test_every_file_is_small_and_says_why() -> None:
    for migration in migrations.available():
        assert migration.text.startswith("-- ")
        assert migration.text.count("\n") <= 300
