"""Each test of the database's own rules works as the programs that share it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from db import Database
from programs import Clinic


@pytest.fixture
def clinic(database: Database, tenant: UUID) -> Iterator[Clinic]:
    """A tenant of its own, and the login of a program that knows the model's tables only."""
    with database.connect_admin() as admin:
        if admin.execute("select from pg_roles where rolname = 'staff_screen'").fetchone() is None:
            admin.execute("create role staff_screen login password 'for-tests'")
        admin.execute("grant usage on schema public to staff_screen")
        admin.execute(
            "grant select, insert, update, delete"
            " on schedules, schedule_exceptions, slots, appointments, waitlist_entries, outbox to staff_screen"
        )
    opened = Clinic(database, tenant)
    yield opened
    opened.leave()
