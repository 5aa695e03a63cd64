"""Subscriptions in the database: a tenant's own, numbers without gaps, states that only the right side sets."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest

from programs import Clinic, Connection

CALLER = '{"subject": "a", "client": "", "patient": "", "user": "", "everything": true, "scopes": []}'


def subscribed(clinic: Clinic, connection: Connection, **columns: object) -> UUID:
    given = {"criteria": "x", "caller": CALLER, "base": "http://x", **columns}
    return clinic.insert(connection, "subscriptions", **given)


def test_a_tenant_sees_its_own_subscriptions_and_events_alone(clinic: Clinic) -> None:
    made = subscribed(clinic, clinic.api())
    clinic.api().execute(
        "insert into subscription_events values (%s, %s, 1, now(), %s, 'created', 'slots', %s, 1)",
        [clinic.tenant, made, uuid4(), uuid4()],
    )
    for table in ("subscriptions", "subscription_events"):
        assert clinic.rows(
            "select relrowsecurity, relforcerowsecurity from pg_class where oid = %s::regclass", table
        ) == [(True, True)]
        count = f"select count(*) from {table}"
        assert clinic.api().execute(count).fetchone() == (1,)
        assert clinic.api(uuid4()).execute(count).fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            clinic.staff().execute(count)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        subscribed(clinic, clinic.api(), tenant_id=uuid4())


def test_an_event_has_one_number_in_a_subscription(clinic: Clinic) -> None:
    made, event, row = subscribed(clinic, clinic.api()), uuid4(), uuid4()
    text = "insert into subscription_events values (%s, %s, %s, now(), %s, 'created', 'slots', %s, 1)"
    clinic.api().execute(text, [clinic.tenant, made, 1, event, row])
    for number, other in ((2, event), (1, uuid4())):
        with pytest.raises(psycopg.errors.UniqueViolation):
            clinic.api().execute(text, [clinic.tenant, made, number, other, row])


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        ("requested", "active", "requested"), ("active", "active", "active"), ("active", "requested", "requested"),
        ("active", "error", "requested"), ("error", "error", "error"), ("error", "active", "requested"),
        ("error", "requested", "requested"), ("off", "active", "requested"), ("off", "error", "requested"),
        ("active", "off", "off"), ("error", "off", "off"), ("off", "off", "off"),
    ],
)  # fmt: skip
def test_a_client_asks_for_work_or_for_none_and_delivery_says_the_state(
    clinic: Clinic, before: str, asked: str, after: str
) -> None:
    made = subscribed(clinic, clinic.api(), status="active")
    assert clinic.get("subscriptions", made) == "requested"
    with clinic.api() as delivery, delivery.transaction():
        delivery.execute("select set_config('app.delivery', 'on', true)")
        delivery.execute(
            "update subscriptions set status = %s, events = 3, due_at = null where id = %s", [before, made]
        )
    clinic.api().execute("update subscriptions set status = %s where id = %s", [asked, made])
    assert clinic.get("subscriptions", made) == after
    assert clinic.get("subscriptions", made, "delivered, due_at is not null") == (
        3 if before in ("error", "off") and after == "requested" else 0,
        after == "requested" and before != "requested",
    )


def test_counting_makes_no_version_and_a_deletion_is_remembered(clinic: Clinic) -> None:
    made = subscribed(clinic, clinic.api())
    with clinic.api() as delivery, delivery.transaction():
        delivery.execute("select set_config('app.delivery', 'on', true)")
        delivery.execute("update subscriptions set events = 3, failures = 1 where id = %s", [made])
        assert clinic.get("subscriptions", made, "version") == 1
    clinic.api().execute("delete from subscriptions where id = %s", [made])
    assert clinic.rows("select version, deleted, row from history where id = %s", made) == [(2, True, None)]
    assert clinic.rows("select count(*) from outbox where aggregate_id = %s", made) == [(0,)]
