"""The backlog of outbox and Subscriptions for /metrics, where no relay in this process looks it up.

A function of the database counts over all tenants and tells nothing else of them. Knows no event and no tenant.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.events.tally import Tally
from fhir_sched.outcome import FhirError
from fhir_sched.subscriptions import tally as subscriptions

PAUSE_S: Final = 5.0
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_FIGURES: Final = Fragment(
    "select waiting, coalesce(extract(epoch from clock_timestamp() - oldest), 0), parked\n"
    "from fhir_sched_outbox_figures()"
)


async def watch(lanes: Lanes, tally: Tally, heard: subscriptions.Heard) -> None:
    """Keep the figures current until it is cancelled; while the database is away they stay as they are."""
    while True:
        try:
            rows, standing = await lanes.read(_NOBODY, _FIGURES, subscriptions.FIGURES, slow=True)
        except FhirError:
            pass
        else:
            waiting, oldest_s, parked = (value or b"0" for value in rows.all()[0])
            tally.waiting, tally.parked = int(waiting), int(parked)
            tally.oldest_s = max(float(oldest_s), 0.0)
            heard.stands(standing.all())
        await asyncio.sleep(PAUSE_S)
