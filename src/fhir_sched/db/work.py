"""What an interaction does with the database: read and write for one tenant, each call alone or all in one.

So the same interaction serves a single request and an entry of a transaction Bundle. Knows no statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from fhir_sched.db.fragment import Fragment
    from fhir_sched.db.lanes import Lanes
    from fhir_sched.db.replica import Replica
    from fhir_sched.db.rows import Rows
    from fhir_sched.db.transaction import Transaction

Answer = TypeVar("Answer")


class Work(Protocol):
    """Statements of one tenant. Both calls raise FhirError and nothing else."""

    async def read(self, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """The rows of each statement; `slow` keeps it off the connections of quick ones."""

    async def write(self, *fragments: Fragment) -> tuple[Rows, ...]:
        """The rows of each statement; all are done or none."""

    async def atomically(self, step: Callable[[Work], Awaitable[Answer]]) -> Answer:
        """What `step` answers; all that it reads and writes by the Work it is given is one transaction.

        It may be run again from the start when it lost to another transaction.
        """


class Alone:
    """Each call is one transaction and one round trip; `caller` is who asks, as `Lanes.write` takes it.

    `read` and `write` hand on what the lanes give: a coroutine around it would be one more for each request.
    """

    def __init__(self, lanes: Lanes, tenant: str, caller: str = "") -> None:
        self._lanes, self._tenant, self._caller = lanes, tenant, caller

    def read(self, *fragments: Fragment, slow: bool = False) -> Coroutine[Any, Any, tuple[Rows, ...]]:
        """See Work."""
        return self._lanes.read(self._tenant, *fragments, slow=slow)

    def write(self, *fragments: Fragment) -> Coroutine[Any, Any, tuple[Rows, ...]]:
        """See Work."""
        return self._lanes.write(self._tenant, *fragments, caller=self._caller)

    async def atomically(self, step: Callable[[Work], Awaitable[Answer]]) -> Answer:
        """See Work."""

        async def attempt() -> Answer:
            async with self._lanes.transaction(self._tenant, self._caller) as transaction:
                return await step(Together(transaction))

        return await self._lanes.retry(attempt)


class Beside:
    """As Alone, where there is a replica: with `lags` reads may go there. `wrote` says whether it may have changed
    something, so that the answer waits until the replica shows it.
    """

    def __init__(self, lanes: Lanes, replica: Replica, tenant: str, caller: str, *, lags: bool) -> None:
        self._alone, self._tenant = Alone(lanes, tenant, caller), tenant
        self._reads = replica if lags else lanes
        self.wrote = False

    async def read(self, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """See Work."""
        return await self._reads.read(self._tenant, *fragments, slow=slow)

    async def write(self, *fragments: Fragment) -> tuple[Rows, ...]:
        """See Work."""
        self.wrote = True
        return await self._alone.write(*fragments)

    async def atomically(self, step: Callable[[Work], Awaitable[Answer]]) -> Answer:
        """See Work."""
        self.wrote = True
        return await self._alone.atomically(step)


class Together:
    """All calls are one transaction, which somebody else begins and ends; reads see what was written."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def read(self, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """See Work."""
        return await self._transaction.run(*fragments)

    async def write(self, *fragments: Fragment) -> tuple[Rows, ...]:
        """See Work."""
        return await self._transaction.run(*fragments)

    async def atomically(self, step: Callable[[Work], Awaitable[Answer]]) -> Answer:
        """See Work: it is one already."""
        return await step(self)
