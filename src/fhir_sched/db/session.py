"""Open one connection, set it up and put it into pipeline mode.

It knows nothing of what is sent afterwards.
"""

from __future__ import annotations

from typing import TypeAlias

import psycopg

from fhir_sched.db.errors import DatabaseGone

Connection: TypeAlias = psycopg.AsyncConnection[tuple[object, ...]]


async def connect(conninfo: str, settings: dict[str, str], timeout_s: int) -> Connection:
    """A connection whose `pgconn` is in non-blocking pipeline mode; DatabaseGone with the reason when it fails."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            conninfo, autocommit=True, connect_timeout=timeout_s, client_encoding="utf8"
        )
    except (psycopg.Error, OSError) as error:
        raise DatabaseGone(f"cannot connect to PostgreSQL: {error}") from error
    try:
        if settings:
            calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
            pairs = [text for pair in settings.items() for text in pair]
            await connection.execute(f"select {calls}".encode(), pairs)
        connection.pgconn.nonblocking = 1
        connection.pgconn.enter_pipeline_mode()
    except psycopg.Error as error:
        connection.pgconn.finish()
        raise DatabaseGone(f"PostgreSQL refused the session's settings: {error}") from error
    except BaseException:
        connection.pgconn.finish()
        raise
    return connection
