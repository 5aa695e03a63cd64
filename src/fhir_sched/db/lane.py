"""One PostgreSQL connection kept in libpq's pipeline mode: many requests in flight, answered in the order they came.

A request is a few statements and one sync, so one implicit transaction and one round trip; an error stays inside it
(libpq 34.5, Pipeline Mode). A lost connection fails what was in flight; that it is opened again is the matter of
`kept_open`. It knows neither tenants nor FHIR.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.pq import ExecStatus

from fhir_sched.db.errors import DatabaseError, DatabaseGone, from_result
from fhir_sched.db.kept_open import KeptOpen
from fhir_sched.db.prepared import PreparedStatements
from fhir_sched.db.rows import Rows
from fhir_sched.db.session import queueing_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from fhir_sched.db.fragment import Fragment

log = logging.getLogger("fhir_sched.db")

# plain ints: an IntEnum member compares several times slower, and this is asked of every result
_SYNC = int(ExecStatus.PIPELINE_SYNC)
_FATAL = int(ExecStatus.FATAL_ERROR)
_ABORTED = int(ExecStatus.PIPELINE_ABORTED)
_BAD_CONNECTION = int(pq.ConnStatus.BAD)

# SQLSTATEs: "cached plan must not change result type", "prepared statement does not exist", read-only transaction
_PLAN_CHANGED = "0A000"
_NO_SUCH_STATEMENT = "26000"
_READ_ONLY = "25006"

# What libpq says when a connection breaks. Its buffer also holds earlier errors with values of rows, which stay out.
_BREAKS = ("FATAL:", "PANIC:", "server closed the connection", "could not ", "SSL ", "connection ")

_queue_sync = queueing_sync()


class _Request:
    """What was sent up to one sync, and what has come back for it."""

    __slots__ = ("error", "future", "generated", "keep", "replayable", "results", "statements")

    def __init__(
        self, statements: Sequence[Fragment], keep: int, future: asyncio.Future[tuple[Rows, ...]], *, replayable: bool
    ) -> None:
        self.statements = statements
        self.keep = keep
        self.replayable = replayable
        self.future = future
        self.results: list[PGresult] = []
        self.error: PGresult | None = None
        # (text, name) prepared and name deallocated at the head of this request, in the order of their results
        self.generated: list[tuple[str | None, bytes]] = []


class Lane(KeptOpen):
    """A connection that keeps itself open, with a queue of requests on the wire.

    `submit` sends at once and returns a future. `on_connect` is called whenever the lane becomes usable.
    """

    def __init__(
        self,
        conninfo: str,
        settings: dict[str, str],
        *,
        on_connect: Callable[[Lane], None] | None = None,
        max_in_flight: int = 256,
        max_prepared: int = 256,
        connect_timeout_s: int = 5,
        silence_s: float = 30.0,
    ) -> None:
        super().__init__(conninfo, settings, connect_timeout_s, silence_s)
        self._on_connect = on_connect
        self._max_in_flight = max_in_flight
        self._read_only = settings.get("default_transaction_read_only") == "on"
        self._pointer = 0
        self._flushing = False
        self._writing = False
        self._waiting: deque[_Request] = deque()
        self._prepared = PreparedStatements(max_prepared)
        self._finished = 0
        self._when_idle: Callable[[Lane], None] | None = None
        self.round_trips = 0

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answer."""
        return len(self._waiting)

    # the connection

    def _opened(self, pgconn: PGconn) -> None:
        self._pointer = getattr(pgconn, "pgconn_ptr", None) or 0
        if self._on_connect is not None:
            self._on_connect(self)

    def _awaited(self) -> int:
        return self._finished if self._waiting else -1

    def _abandon(self, reason: str) -> int:
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False
        self._prepared.forget()
        lost, self._waiting = self._waiting, deque()
        for request in lost:
            if not request.future.done():
                request.future.set_exception(DatabaseGone(reason))
        return len(lost)

    # sending

    def submit(
        self, statements: Sequence[Fragment], keep: int, *, replayable: bool = True
    ) -> asyncio.Future[tuple[Rows, ...]]:
        """Send the statements as one request; the future brings the rows of the last `keep` of them.

        It fails with DatabaseError or DatabaseGone. `replayable` says that the request is a transaction by itself, so
        that it may be sent again when a prepared statement turns out to be stale. A cancelled future only means that
        nobody reads the answer.
        """
        future: asyncio.Future[tuple[Rows, ...]] = self._loop.create_future()
        if self._pgconn is None:
            future.set_exception(DatabaseGone("not connected to PostgreSQL"))
        elif len(self._waiting) >= self._max_in_flight:
            future.set_exception(DatabaseError("53400", "too many requests in flight"))
        else:
            self._send(self._pgconn, _Request(statements, keep, future, replayable=replayable))
        return future

    def when_idle(self, callback: Callable[[Lane], None]) -> None:
        """Call back once, when nothing is in flight any more: now, or after the last answer or the loss of the lane."""
        self._when_idle = callback
        self._idle()

    def _idle(self) -> None:
        if not self._waiting and self._when_idle is not None:
            callback, self._when_idle = self._when_idle, None
            callback(self)

    def _send(self, pgconn: PGconn, request: _Request) -> None:
        self.round_trips += 1
        self._waiting.append(request)
        prepared = self._prepared
        try:
            for statement in request.statements:
                new_name = prepared.use(statement.text)
                if new_name is not None:
                    self._prepare(pgconn, statement.text, new_name, request)
            for statement in request.statements:
                name = prepared.name(statement.text)
                if name is None:
                    pgconn.send_query_params(statement.text.encode(), statement.args)
                else:
                    pgconn.send_query_prepared(name, statement.args)
        except psycopg.Error as error:
            self.give_up(f"cannot send: {_why(str(error))}")
            return
        except Exception as error:  # noqa: BLE001 - it goes to the caller, who awaits the future
            # an argument of a wrong type, say: the sync below still ends this request and leaves the others alone
            request.future.set_exception(error)
        try:
            if _queue_sync is None:
                pgconn.pipeline_sync()
            elif not _queue_sync(self._pointer):
                raise psycopg.OperationalError("no sync")
        except psycopg.Error as error:
            self.give_up(f"cannot send: {_why(str(error))}")
            return
        if not self._flushing:
            # Once a turn of the loop, for all that came in it: each send may let the kernel put the woken PostgreSQL
            # process in our place, with the rest of the turn still to do.
            self._flushing = True
            self._loop.call_soon(self._flush, pgconn)

    def _flush(self, pgconn: PGconn) -> None:
        self._flushing = False
        if self._pgconn is not pgconn:
            return
        try:
            if pgconn.flush() and not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._writable)
        except psycopg.Error as error:
            self.give_up(f"cannot send: {_why(str(error))}")

    def _prepare(self, pgconn: PGconn, text: str, name: bytes, request: _Request) -> None:
        stale = self._prepared.stale
        while stale:
            old_name = stale.pop()
            # a statement rather than libpq's Close message, which older libpq does not have
            pgconn.send_query_params(b"deallocate " + old_name, ())
            request.generated.append((None, old_name))
        pgconn.send_prepare(name, text.encode())
        request.generated.append((text, name))

    def _writable(self) -> None:
        try:
            if self._pgconn is not None and not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
                self._writing = False
        except psycopg.Error as error:
            self.give_up(f"cannot send: {_why(str(error))}")

    # receiving

    def _readable(self) -> None:
        pgconn = self._pgconn
        if pgconn is None:
            return
        lost: str | None = None
        try:
            pgconn.consume_input()
        except psycopg.Error as error:
            lost = str(error)
        waiting = self._waiting
        try:
            while waiting and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    if pgconn.status == _BAD_CONNECTION:
                        break
                    continue
                status = result.status
                if status == _SYNC:
                    self._finished += 1
                    self._answer(waiting.popleft())
                    continue
                request = waiting[0]
                if status == _FATAL and request.error is None:
                    request.error = result
                request.results.append(result)
        except psycopg.Error as error:
            lost = str(error)
        if self._pgconn is not pgconn:
            return
        if lost is not None or pgconn.status == _BAD_CONNECTION:
            self.give_up(_why(lost or pgconn.get_error_message()))
        elif not waiting:
            self._idle()

    def _answer(self, request: _Request) -> None:
        if request.error is None:
            if not request.future.done():
                keep = request.results[-request.keep :] if request.keep else ()
                request.future.set_result(tuple([Rows(result) for result in keep]))
            return
        self._forget_unprepared(request)
        index = request.results.index(request.error) - len(request.generated)
        error = from_result(request.error, request.statements[index].text if index >= 0 else "")
        if self._forget_stale(error) and self._replay(request):
            return
        if not request.future.done():
            request.future.set_exception(error)
        if error.sqlstate == _READ_ONLY and not self._read_only:
            # the primary has become a standby: connecting again finds the new one when the URL names several hosts
            self._loop.call_soon(self.give_up, "the server has become read-only")

    def _forget_unprepared(self, request: _Request) -> None:
        """After an error: what was to be prepared or deallocated from there on has not been."""
        for (text, name), result in zip(request.generated, request.results, strict=False):
            if result.status in (_FATAL, _ABORTED):
                if text is None:
                    self._prepared.stale.append(name)
                else:
                    self._prepared.revoke(text, name)

    def _forget_stale(self, error: DatabaseError) -> bool:
        """Whether the error only says that a prepared statement cannot be used any more; it is forgotten then."""
        if error.sqlstate == _NO_SUCH_STATEMENT:
            # they go together: somebody reset the session, or a pooler changed it for another
            self._prepared.forget()
            return True
        return error.sqlstate == _PLAN_CHANGED and self._prepared.renew(error.statement)

    def _replay(self, request: _Request) -> bool:
        """Send the request once more; False when it is a part of a transaction, or was sent again already."""
        if not request.replayable or request.future.done() or self._pgconn is None:
            return False
        self._send(self._pgconn, _Request(request.statements, request.keep, request.future, replayable=False))
        return True


def _why(said: str) -> str:
    """The lines about the connection itself, of what libpq says when one breaks."""
    return "; ".join(line for line in said.splitlines() if line.startswith(_BREAKS)) or "the connection broke"
