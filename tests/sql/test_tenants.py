"""What belongs to a tenant stays with it, for every role that can be held to it."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from programs import Clinic, at, outcome

TABLES = [
    "schedules", "schedule_exceptions", "slots", "appointments", "waitlist_entries", "outbox",
    "provider_times", "extra_slots", "history", "search_tokens",
]  # fmt: skip
MODEL = TABLES[:6]


@pytest.mark.parametrize("table", TABLES)
def test_row_level_security_is_forced_and_shows_one_tenant(clinic: Clinic, table: str) -> None:
    assert clinic.rows("select relrowsecurity, relforcerowsecurity from pg_class where oid = %s::regclass", table) == [
        (True, True)
    ]
    slots = [clinic.slot(schedule := clinic.schedule(service_types=["x"]), start) for start in (0, 20)]
    booked = clinic.book(slots[0], extra_slot_ids=slots[1:], provider_id=uuid4(), start_at=at(0), end_at=at(20))
    clinic.close(schedule, 60, 80)
    clinic.insert(clinic.root(), "waitlist_entries", patient_id=uuid4(), appointment_type="x", created_by=uuid4())
    clinic.root().execute("update appointments set reason = 'x' where id = %s", [booked])
    count = f"select count(*) from {table}"
    own = clinic.api().execute(count).fetchone()
    assert own is not None
    assert own[0] > 0
    assert clinic.api(uuid4()).execute(count).fetchone() == (0,)
    if table in MODEL:
        assert clinic.staff(uuid4()).execute(count).fetchone() == (0,)


@pytest.mark.parametrize("program", ["api", "staff"])
def test_without_a_tenant_nothing_is_seen_and_nothing_written(clinic: Clinic, program: str) -> None:
    clinic.schedule()
    connection = getattr(clinic, program)()
    for unset in ("", None):
        connection.execute("reset app.tenant_id") if unset is None else connection.execute("set app.tenant_id = ''")
        assert connection.execute("select count(*) from schedules").fetchone() == (0,)
        assert outcome(lambda: clinic.schedule(connection)).startswith("42501")


@pytest.mark.parametrize("program", ["api", "staff"])
def test_a_row_for_another_tenant_is_refused(clinic: Clinic, program: str) -> None:
    connection = getattr(clinic, program)()
    assert outcome(lambda: clinic.schedule(connection, tenant_id=uuid4())).startswith("42501")


def test_keys_do_not_cross_tenants_even_for_a_superuser(clinic: Clinic) -> None:
    foreign, root = uuid4(), clinic.root()
    schedule = clinic.schedule()
    slot = clinic.slot(schedule, 0)
    assert outcome(lambda: clinic.slot(schedule, 20, root, tenant_id=foreign)) == "23503 slots_schedule_fk"
    window = {"schedule_id": schedule, "start_at": at(0), "end_at": at(9), "tenant_id": foreign}
    assert outcome(lambda: clinic.insert(root, "schedule_exceptions", **window)) == (
        "23503 schedule_exceptions_schedule_fk"
    )
    for status in ("booked", "proposed"):
        attempt = outcome(lambda s=status: clinic.book(slot, root, tenant_id=foreign, status=s))  # type: ignore[misc]
        assert attempt == "23503 appointments_slot_fk"
    attempt = outcome(lambda: clinic.book(None, root, tenant_id=foreign, extra_slot_ids=[slot]))
    assert attempt == "23503 appointment_slot_missing"
    assert clinic.get("slots", slot) == "free"


def test_the_server_s_role_owns_nothing_and_bypasses_nothing(clinic: Clinic) -> None:
    for role in ("fhir_sched_app", "fhir_sched_trigger"):
        assert clinic.rows("select rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = %s", role) == [
            (False, False, False)
        ]
        assert clinic.rows("select relname from pg_class where relowner = %s::regrole", role) == []
    assert clinic.rows("select rolcanlogin from pg_roles where rolname = 'fhir_sched_trigger'") == [(False,)]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into history (tenant_id, table_name, id, version, updated_at) values (%s, 'slots', %s, 1, now())",
        "delete from history where tenant_id = %s and id = %s",
        "insert into search_tokens (tenant_id, parameter, value, id, kind) values (%s, 'x', 'x', %s, 'a')",
        "update provider_times set tenant_id = %s where appointment_id = %s",
        "update outbox set tenant_id = %s where id = %s",
        "insert into outbox (tenant_id, aggregate_id, event_type, payload) values (%s, %s, 'x', '{}')",
    ],
)
def test_the_server_writes_derived_tables_through_triggers_only(clinic: Clinic, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        clinic.api().execute(statement, [clinic.tenant, uuid4()])


def test_trigger_functions_belong_to_the_role_without_a_login_and_are_nobody_s_to_call(clinic: Clinic) -> None:
    assert clinic.rows(
        """
        select proname
        from pg_proc
        where proname like 'fhir|_sched|_%%' escape '|'
          and prosecdef
          and (proowner <> 'fhir_sched_trigger'::regrole or has_function_privilege('staff_screen', oid, 'execute'))
        """
    ) == []  # fmt: skip
