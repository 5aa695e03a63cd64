"""The programs that share the database, for the tests of its own rules.

`staff` has rights on the model's six tables and nothing else; `root` is a superuser that never says which
tenant it works for; `api` is the server's role with its settings.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from db import Database

Connection = psycopg.Connection[tuple[Any, ...]]
DAY = datetime(2031, 3, 3, 8, tzinfo=UTC)


def at(minutes: int) -> datetime:
    """That many minutes after the clinic opens."""
    return DAY + timedelta(minutes=minutes)


@dataclass
class Clinic:
    """Rows of one tenant, written through the superuser unless a connection is given."""

    database: Database
    tenant: UUID
    opened: list[Connection] = field(default_factory=list)

    def keep(self, connection: Connection) -> Connection:
        """The connection, closed when the test ends."""
        self.opened.append(connection)
        return connection

    def leave(self) -> None:
        """Close every connection."""
        for connection in self.opened:
            connection.close()

    def root(self) -> Connection:
        """A superuser that never sets app.tenant_id."""
        return self.keep(self.database.connect_admin())

    @cached_property
    def operator(self) -> Connection:
        """The superuser's connection that prepares and looks; no test's transaction runs on it."""
        return self.root()

    def staff(self, tenant: UUID | None = None) -> Connection:
        """A program with rights on the model's tables only."""
        url = make_conninfo(self.database.app_url, user="staff_screen", password="for-tests")
        connection = self.keep(psycopg.connect(url, autocommit=True))
        connection.execute("select set_config('app.tenant_id', %s, false)", [str(tenant or self.tenant)])
        return connection

    def api(self, tenant: UUID | None = None) -> Connection:
        """The server's role with its settings."""
        connection = self.keep(self.database.connect_app(tenant or self.tenant))
        connection.execute("select set_config('app.writer', 'fhir', false)")
        return connection

    def insert(self, connection: Connection, table: str, **columns: Any) -> UUID:
        """Insert one row; its id."""
        values = {"tenant_id": self.tenant, **columns}
        statement = sql.SQL("insert into {} ({}) values ({}) returning id").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        )
        adapted = [Jsonb(value) if isinstance(value, dict) else value for value in values.values()]
        row = connection.execute(statement, adapted).fetchone()
        assert row is not None
        return UUID(str(row[0]))

    def schedule(self, connection: Connection | None = None, **columns: Any) -> UUID:
        """A schedule of a new practitioner."""
        given = {"actor_id": uuid4(), "actor_type": "provider", **columns}
        return self.insert(connection or self.operator, "schedules", **given)

    def slot(self, schedule: UUID, start: int, connection: Connection | None = None, **columns: Any) -> UUID:
        """A free slot of twenty minutes."""
        given = {"schedule_id": schedule, "start_at": at(start), "end_at": at(start + 20), **columns}
        return self.insert(connection or self.operator, "slots", **given)

    def book(self, slot: UUID | None, connection: Connection | None = None, **columns: Any) -> UUID:
        """An appointment on the slot, booked, without a practitioner or times."""
        given = {"patient_id": uuid4(), "created_by": uuid4(), "slot_id": slot, **columns}
        return self.insert(connection or self.operator, "appointments", **given)

    def close(self, schedule: UUID, start: int, end: int, connection: Connection | None = None) -> UUID:
        """A schedule exception."""
        given = {"schedule_id": schedule, "start_at": at(start), "end_at": at(end)}
        return self.insert(connection or self.operator, "schedule_exceptions", **given)

    def get(self, table: str, row_id: UUID, columns: str = "status") -> Any:
        """The value of one column, or a tuple of several."""
        query = sql.SQL("select {} from {} where id = %s").format(sql.SQL(columns), sql.Identifier(table))
        row = self.operator.execute(query, [row_id]).fetchone()
        assert row is not None
        return row[0] if len(row) == 1 else row

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """All rows of a query, asked by the superuser."""
        return self.operator.execute(query, arguments).fetchall()


def race(*attempts: Callable[[], Any]) -> list[str]:
    """Run them at once, each in a thread; "ok" or "<sqlstate> <constraint>" of each."""
    start = Barrier(len(attempts))

    def run(attempt: Callable[[], Any]) -> str:
        start.wait()
        return outcome(attempt)

    with ThreadPoolExecutor(len(attempts)) as pool:
        return list(pool.map(run, attempts))


def outcome(attempt: Callable[[], Any]) -> str:
    """ "ok", or what the database said."""
    try:
        attempt()
    except psycopg.Error as error:
        return f"{error.sqlstate} {error.diag.constraint_name}"
    return "ok"
