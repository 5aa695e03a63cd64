"""Old events are removed in small batches, the backlog is counted. Knows no sink."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

from fhir_sched.events import outbox
from fhir_sched.events.session import Connection, under
from fhir_sched.events.tally import Tally

_BATCH: Final = 1_000
_PAUSE_S: Final = 0.05


async def count(connection: Connection, tally: Tally) -> None:
    """Bring the figures of the backlog up to date."""
    cursor = await connection.execute("select waiting, oldest, parked from fhir_sched_outbox_figures()")
    row = await cursor.fetchone()
    if row is None:
        return
    waiting, oldest, parked = row
    tally.waiting, tally.parked = int(str(waiting)), int(str(parked))
    tally.oldest_s = max((datetime.now(UTC) - oldest).total_seconds(), 0.0) if isinstance(oldest, datetime) else 0.0


async def remove_old(connection: Connection, days: int) -> int:
    """Remove the events that were published and are older than that, tenant by tenant; how many."""
    cursor = await connection.execute(
        "select t::text from fhir_sched_tenants_with_old_events(now() - make_interval(days => %s)) t", [days]
    )
    total = 0
    for (tenant,) in await cursor.fetchall():
        removed = _BATCH
        while removed == _BATCH:
            async with under(connection, str(tenant)):
                removed = await outbox.remove_old(connection, str(tenant), days, _BATCH)
            total += removed
            await asyncio.sleep(_PAUSE_S)
    return total
