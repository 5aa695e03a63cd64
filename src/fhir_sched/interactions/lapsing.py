"""Lets holds lapse whose time is over, so that searches show their slots as free. sql/019.

Nobody depends on it: whoever wants such a slot lets the hold lapse first. Works tenant by tenant under row-level
security, with the server's own role. Knows nothing of FHIR.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fhir_sched.db.fragment import Fragment, text_args
from fhir_sched.db.lanes import Lanes
from fhir_sched.outcome import FhirError

log = logging.getLogger("fhir_sched.holds")

_EVERY_S: Final = 1.0
_NO_TENANT: Final = "00000000-0000-0000-0000-000000000000"
_TENANTS: Final = Fragment("select fhir_sched_tenants_with_expired_holds()")


def lapsing(tenant: str) -> Fragment:
    """Lets lapse what is over of a tenant, at most a hundred holds, but for what others are just changing; how many."""
    return Fragment("select fhir_sched_lapse_holds($1::uuid, null)", text_args(tenant))


async def lapse_expired(lanes: Lanes) -> int:
    """Let lapse what is over now, at most a hundred holds of a tenant; answers how many. Raises FhirError."""
    (tenants,) = await lanes.read(_NO_TENANT, _TENANTS)
    lapsed = 0
    for (tenant,) in tenants.all():
        named = (tenant or b"").decode()
        (rows,) = await lanes.write(named, lapsing(named))
        lapsed += int(rows.get(0, 0) or 0)
    return lapsed


async def keep_lapsing(lanes: Lanes) -> None:
    """Do so again and again, until it is cancelled; a database that can't be reached is asked again."""
    while True:
        try:
            await lapse_expired(lanes)
        except FhirError as error:
            log.warning("holds that are over could not be let go: %s", error)
        await asyncio.sleep(_EVERY_S)
