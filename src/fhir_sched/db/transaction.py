"""An explicit transaction on a connection that nobody else uses meanwhile: BEGIN, statements, COMMIT or ROLLBACK.

Law: it never goes on after its connection was lost, since a new one knows neither its changes nor its tenant.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fhir_sched.db.errors import DatabaseError, DatabaseGone, translate
from fhir_sched.db.fragment import Fragment

if TYPE_CHECKING:
    from fhir_sched.db.lane import Lane
    from fhir_sched.db.rows import Rows

_BEGIN = Fragment("begin")
_COMMIT = Fragment("commit")
_ROLLBACK = Fragment("rollback")


class Transaction:
    """An explicit transaction under one tenant; its first statement takes BEGIN and the tenant with it."""

    __slots__ = ("_generation", "_lane", "_prelude")

    def __init__(self, lane: Lane, session: Fragment) -> None:
        self._lane = lane
        self._generation = lane.generation
        self._prelude: tuple[Fragment, ...] = (_BEGIN, session)

    async def run(self, *fragments: Fragment) -> tuple[Rows, ...]:
        """The rows of each statement, in one round trip; after a FhirError the transaction can only be rolled back."""
        try:
            return await self._send(fragments)
        except DatabaseError as error:
            raise translate(error) from error

    async def commit(self) -> None:
        """Commit what was run; an error if PostgreSQL had given the transaction up before."""
        if self._prelude:
            return
        try:
            (rows,) = await self._send((_COMMIT,))
        except DatabaseError as error:
            raise translate(error) from error
        if rows.command != b"COMMIT":
            raise RuntimeError("a transaction with a failed statement cannot be committed")

    def abandon(self) -> None:
        """Roll back, without waiting for the answer."""
        if not self._prelude and self._lane.generation == self._generation:
            # an answer nobody waits for: when the connection is lost the transaction is gone all the same
            self._send((_ROLLBACK,)).add_done_callback(asyncio.Future.exception)

    def _send(self, fragments: tuple[Fragment, ...]) -> asyncio.Future[tuple[Rows, ...]]:
        if self._lane.generation != self._generation:
            # connected again meanwhile: nothing of this transaction is left there
            raise DatabaseGone("the transaction was lost with its connection")
        prelude, self._prelude = self._prelude, ()
        return self._lane.submit((*prelude, *fragments), len(fragments), replayable=False)
