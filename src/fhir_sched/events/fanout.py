"""The seam for Subscriptions: whoever wants to be told of every event inside the database.

Law: an event is fanned out once, in the transaction that marks it, in order for each row that it is about. Independent
of sinks: neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from fhir_sched.events.event import Event
from fhir_sched.events.session import Connection


class Fanout(Protocol):
    """Told of events tenant by tenant; events have their `payload`."""

    async def anybody(self, connection: Connection) -> bool:
        """Whether any tenant has somebody to tell."""

    async def tenants(self, connection: Connection) -> Mapping[str, datetime]:
        """The tenants with events to tell somebody of, and since when events concern them; cheap, asked all the time.

        Events that were written before that moment are not looked at.
        """

    async def fan_out(self, connection: Connection, tenant: str, events: Sequence[Event]) -> None:
        """Keep what is to be told, inside the open transaction, which is the tenant's. What it raises undoes all.

        Calls for one tenant may overlap (several relays), then with events of different rows.
        """

    def told(self, tenant: str) -> None:
        """That transaction is committed: what was kept may be sent."""
