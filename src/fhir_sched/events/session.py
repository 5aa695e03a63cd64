"""The relay's own connections: each transaction is of one tenant, bound by row-level security like any other.

Law: the tenant is set inside the transaction and ends with it. Knows no table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import psycopg
from psycopg.conninfo import make_conninfo

from fhir_sched.db.limits import with_defaults

Connection: TypeAlias = psycopg.AsyncConnection[tuple[object, ...]]

APPLICATION: Final = "fhir-sched relay"
# A transaction stays open while a sink is spoken to, whose own time-outs are far shorter.
_SETTINGS: Final = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
}


async def connect(conninfo: str) -> Connection:
    """A connection in autocommit. Raises psycopg.Error."""
    named = make_conninfo(conninfo, application_name=APPLICATION)
    connection = await psycopg.AsyncConnection.connect(
        with_defaults(named), autocommit=True, connect_timeout=5, client_encoding="utf8"
    )
    try:
        calls = ", ".join(["set_config(%s, %s, false)"] * len(_SETTINGS))
        await connection.execute(f"select {calls}".encode(), [text for pair in _SETTINGS.items() for text in pair])
    except BaseException:
        await connection.close()
        raise
    return connection


@asynccontextmanager
async def under(connection: Connection, tenant: str, *, hurried: bool = False) -> AsyncIterator[None]:
    """A transaction of that tenant: committed at the end of the block, rolled back on any error.

    A `hurried` one does not wait until it is on disk: for what may be done again after a crash.
    """
    async with connection.transaction():
        await connection.execute(
            "select set_config('app.tenant_id', %s, true), set_config('synchronous_commit', %s, true)",
            [tenant, "off" if hurried else "on"],
        )
        yield
