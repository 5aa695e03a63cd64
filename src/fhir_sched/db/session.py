"""Open one connection, set it up and put it into pipeline mode.

It knows nothing of what is sent afterwards.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, TypeAlias

import psycopg
from psycopg import pq

from fhir_sched.db.errors import DatabaseGone

if TYPE_CHECKING:
    from collections.abc import Callable

Connection: TypeAlias = psycopg.AsyncConnection[tuple[object, ...]]


def queueing_sync() -> Callable[[int], int] | None:
    """libpq's PQsendPipelineSync (17 and later), which queues a sync where PQpipelineSync sends it at once.

    psycopg does not bind it; its extension module leads to the very libpq that it is linked with. Takes `pgconn_ptr`,
    returns 0 on failure. None where libpq is older or psycopg is not compiled.
    """
    try:
        extension = sys.modules[pq.PGconn.__module__].__file__
        function = ctypes.PyDLL(extension).PQsendPipelineSync
    except (OSError, AttributeError, KeyError):
        return None
    function.argtypes, function.restype = (ctypes.c_void_p,), ctypes.c_int
    found: Callable[[int], int] = function
    return found


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
