"""Slots that became free, offered to those who wait for them: the worker beside the requests of `serve`.

The database writes down what opens and chooses who is offered it (sql/021, 033); this makes the offer, a hold for that
patient, in one transaction with its record. Any number of server processes may do it at once: what is locked or taken
by another is left to it. Runs as nobody, so that no rule of booking binds it. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from fhir_sched import mapping, rendering, statements
from fhir_sched.capability import NEUTRAL_BASE
from fhir_sched.db.errors import DatabaseError
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.transaction import Transaction
from fhir_sched.definition import Resource
from fhir_sched.interactions.lapsing import lapsing
from fhir_sched.outcome import FhirError
from fhir_sched.resources import RESOURCES
from fhir_sched.security.caller import ANONYMOUS

log = logging.getLogger("fhir_sched.waitlist")

_PAUSE_S = 0.25
_TROUBLE_S = 5.0
_OURS = 500
_AT_ONCE = 500
"""How many offers of one tenant are made before the next tenant has its turn."""

_TENANTS = Fragment("select fhir_sched_tenants_with_openings()::text")
_WITHDRAW = Fragment("select fhir_sched_withdraw_offers()")
_NEXT = "select opening, slot, entry, expires_at, waiting_ahead from fhir_sched_next_offer($1::integer)"
_DROP = "select fhir_sched_drop_opening($1::bigint)"
_RECORD = """
insert into waitlist_offers
    (tenant_id, entry_id, slot_id, schedule_id, appointment_id, priority, waiting_since, waiting_ahead, expires_at)
select w.tenant_id, w.id, s.id, s.schedule_id, $4::uuid, w.priority, w.created_at, $5::integer, $6::timestamptz
from waitlist_entries w
join slots s on s.tenant_id = w.tenant_id and s.id = $3::uuid
where w.tenant_id = $1::uuid
  and w.id = $2::uuid
"""

_APPOINTMENT, _SCHEDULE, _SLOT = (RESOURCES[name] for name in ("Appointment", "Schedule", "Slot"))
_ALIKE = (
    "serviceCategory", "serviceType", "specialty", "appointmentType", "reasonCode", "reasonReference", "description",
    "basedOn",
)  # fmt: skip
"""What an offer has in common with the entry that it is made to."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What the database chose; the columns as it writes them."""

    opening: bytes
    slot: str
    entry: str
    expires_at: bytes
    waiting_ahead: bytes


class Offering:
    """Makes the offers of every tenant; `seconds` is how long one stands."""

    def __init__(self, lanes: Lanes, seconds: int) -> None:
        self._lanes, self._seconds = lanes, seconds
        self._troubled = False

    async def run(self) -> None:
        """Offer what opens, for ever; what the database can't do now is tried again with the next round."""
        while True:
            self._troubled = False
            try:
                await self.round()
            except FhirError as error:
                self._trouble(error)
            await asyncio.sleep(_TROUBLE_S if self._troubled else _PAUSE_S)

    async def round(self) -> int:
        """Everything that has opened until now; how many offers were made. A tenant whose turn fails has another."""
        (rows,) = await self._lanes.write(ANONYMOUS, _TENANTS)
        made = 0
        for row in rows.all():
            try:
                made += await self._tenant((row[0] or b"").decode())
            except Exception as error:  # noqa: BLE001 - the other tenants have their turn
                self._trouble(error)
        return made

    def _trouble(self, error: Exception) -> None:
        self._troubled = True
        if isinstance(error, FhirError):
            log.warning("offers wait for the database: %s", error)
        else:
            log.error("an offer failed", exc_info=error)

    async def _tenant(self, tenant: str) -> int:
        # an offer that is over would keep its entry from the slot that just became free
        await self._lanes.write(tenant, _WITHDRAW, lapsing(tenant))
        made = 0
        for _ in range(_AT_ONCE):
            offered = await self._lanes.retry(lambda: self._offer(tenant))
            if offered is None:
                break
            made += offered
        return made

    async def _offer(self, tenant: str) -> int | None:
        """1 for an offer, 0 when nobody asks for what was looked at, None when there is nothing to look at."""
        chosen: _Chosen | None = None
        try:
            async with self._lanes.transaction(tenant) as transaction:
                (rows,) = await transaction.run(Fragment(_NEXT, (str(self._seconds).encode(),)))
                row = rows.first()
                if row is None or row[0] is None:
                    return None if row is None else 0
                opening, slot, entry, expires_at, ahead = (cell or b"" for cell in row)
                chosen = _Chosen(opening, slot.decode(), entry.decode(), expires_at, ahead)
                await _make(transaction, tenant, chosen)
                return 1
        except FhirError as error:
            if chosen is None or error.status >= _OURS:
                raise
            cause = error.__cause__
            if not (isinstance(cause, DatabaseError) and cause.constraint == "ix_waitlist_offers_open"):
                await self._drop(tenant, chosen)
            return 0
        except Exception:
            if chosen is not None:
                await self._drop(tenant, chosen)  # else it would fail again and again, and hold up those behind it
            raise

    async def _drop(self, tenant: str, chosen: _Chosen) -> None:
        await self._lanes.write(tenant, Fragment(_DROP, (chosen.opening,)))


async def _make(transaction: Transaction, tenant: str, chosen: _Chosen) -> None:
    """The hold and its record. Raises 409 when the slot or the practitioner's time is taken."""
    entry = await _read(transaction, _APPOINTMENT, "wl", chosen.entry, tenant)
    slot = await _read(transaction, _SLOT, "slt", chosen.slot, tenant)
    schedule_id = slot["schedule"]["reference"].rpartition("sch-")[2]
    schedule = await _read(transaction, _SCHEDULE, "sch", schedule_id, tenant)
    source = _APPOINTMENT.source["apt"]
    columns = mapping.to_columns(_APPOINTMENT, source, offer(entry, slot, schedule), NEUTRAL_BASE).columns
    columns |= {"created_by": ANONYMOUS.encode(), "hold_expires_at": chosen.expires_at}
    (rows,) = await transaction.run(statements.insert(source, columns, tenant))
    (made,) = rows.all()
    named = (tenant.encode(), chosen.entry.encode(), chosen.slot.encode(), made[0])
    await transaction.run(Fragment(_RECORD, (*named, chosen.waiting_ahead, chosen.expires_at)))


async def _read(transaction: Transaction, resource: Resource, prefix: str, row_id: str, tenant: str) -> dict[str, Any]:
    source = resource.source[prefix]
    (rows,) = await transaction.run(statements.read(source, row_id, tenant))
    (row,) = rows.all()
    return rendering.to_resource(resource, source, row)


def offer(entry: dict[str, Any], slot: dict[str, Any], schedule: dict[str, Any]) -> dict[str, Any]:
    """The appointment that is offered: the slot's time, the entry's patients and wishes, the schedule's actors."""
    waiting = [{**each, "status": "needs-action"} for each in entry["participant"] if _is_patient(each)]
    actors = [{"actor": actor, "status": "accepted"} for actor in schedule["actor"]]
    return {
        "resourceType": "Appointment",
        "status": "pending",
        **{name: entry[name] for name in _ALIKE if name in entry},
        "supportingInformation": [{"reference": f"Appointment/{entry['id']}"}],
        "start": slot["start"],
        "end": slot["end"],
        "slot": [{"reference": f"Slot/{slot['id']}"}],
        "participant": [*waiting, *actors],
    }


def _is_patient(participant: dict[str, Any]) -> bool:
    actor = participant.get("actor", {})
    return "Patient" in (actor.get("type", ""), *actor.get("reference", "").split("/")[-2:-1])
