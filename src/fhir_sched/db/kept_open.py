"""A connection to PostgreSQL that keeps itself open: lost, it is opened again by itself, after a growing pause with
jitter. What goes over it is the matter of whoever inherits (`lane`). It knows no statement.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from fhir_sched.db.errors import DatabaseGone
from fhir_sched.db.session import Connection, connect

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

log = logging.getLogger("fhir_sched.db")

_LONGEST_PAUSE_S = 0.4
_SAID_EVERY = 25
# uvloop tells of a reset once: when libpq reads PostgreSQL's last words then, nobody calls it for the end behind them.
_LOOK_S = 0.25


class KeptOpen(ABC):
    """`generation` counts the connections that there have been, `lost` those that broke; `lost_at` is when the last of
    them did, by the loop's clock.
    """

    def __init__(self, conninfo: str, settings: dict[str, str], connect_timeout_s: int, silence_s: float) -> None:
        self._conninfo = conninfo
        self._settings = settings
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._connection: Connection | None = None
        self._pgconn: PGconn | None = None
        self._socket = -1
        self._reconnecting: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False
        self.generation = 0
        self.lost = 0
        self.lost_at = float("-inf")

    # what goes over it

    @abstractmethod
    def _opened(self, pgconn: PGconn) -> None:
        """The connection can be used."""

    @abstractmethod
    def _readable(self) -> None:
        """Something may have come, or the connection has ended."""

    @abstractmethod
    def _awaited(self) -> int:
        """The number of the request whose answer is the next to come; -1 when none is awaited."""

    @abstractmethod
    def _abandon(self, reason: str) -> int:
        """The connection is about to be closed: fail what is in flight. How many requests that were."""

    @abstractmethod
    def _idle(self) -> None:
        """Nothing is in flight any more."""

    @property
    def connected(self) -> bool:
        """Whether a request can be sent now."""
        return self._pgconn is not None

    # opening and closing

    async def open(self) -> None:
        """Connect. DatabaseGone when that fails; it then goes on trying until it is closed."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._connect()
        except DatabaseGone:
            self._reconnect()
            raise

    async def close(self) -> None:
        """Stop for good; what is in flight fails with DatabaseGone."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        self.give_up("the server is shutting down")

    async def _connect(self) -> None:
        connection = await connect(self._conninfo, self._settings, self._connect_timeout_s)
        pgconn = connection.pgconn
        self._connection, self._pgconn, self._socket = connection, pgconn, pgconn.socket
        self.generation += 1
        self._loop.add_reader(self._socket, self._readable)
        self._watch(-1)
        self._looking = self._loop.call_later(_LOOK_S, self._look)
        self._opened(pgconn)

    def _reconnect(self) -> None:
        if not self._closed and self._reconnecting is None:
            self._reconnecting = self._loop.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        pause_s, failures = 0.05, 0
        try:
            while not self._closed:
                # jitter: the lanes of every worker lost their connection at the same moment
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
                try:
                    await self._connect()
                except DatabaseGone as error:
                    # said at first and now and then, not by every lane several times a second
                    if failures % _SAID_EVERY == 0:
                        log.warning("%s", error)
                    failures += 1
                    # short even after long: a second after PostgreSQL is back, everything has to work again
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                else:
                    return
        finally:
            self._reconnecting = None

    def give_up(self, reason: str) -> None:
        """Drop the connection, where there is one, and open it again; what is in flight fails with DatabaseGone."""
        if self._pgconn is None:
            return
        for timer in (self._watchdog, self._looking):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._socket)
        failed = self._abandon(reason)
        self._pgconn.finish()
        self._connection = self._pgconn = None
        self.lost += 1
        self.lost_at = self._loop.time()
        if not self._closed:
            log.warning("connection to PostgreSQL lost with %d requests in flight: %s", failed, reason)
        self._reconnect()
        self._idle()

    def _watch(self, awaited_then: int) -> None:
        """Give the connection up when the request that was awaited a while ago still is (-1: there was none)."""
        # statement_timeout bounds a statement; this bounds a server or a network that says nothing at all
        awaited = self._awaited()
        if awaited >= 0 and awaited == awaited_then:
            self.give_up(f"no answer for {self._silence_s:g} s")
        else:
            self._watchdog = self._loop.call_later(self._silence_s, self._watch, awaited)

    def _look(self) -> None:
        """Read what there is, and see whether the connection has ended, without being called for it."""
        self._looking = self._loop.call_later(_LOOK_S, self._look)
        self._readable()
