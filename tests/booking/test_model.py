"""Random sequences of changes: nothing is occupied twice, slots agree with appointments, nothing acknowledged is lost.

How they are played, and how to play more of them, stands in `game.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from clinic import EXTENSION
from db import Database
from diary import OCCUPYING, Visit
from fhir_sched.db.lanes import Lanes
from fhir_sched.interactions.offering import Offering
from game import Game, played, some, writers
from server import Server

OFFERS = "select appointment_id, entry_id, slot_id from waitlist_offers where tenant_id = %s order by offered_at"
OPENINGS = "select count(*) from waitlist_openings where tenant_id = %s"
ENTRIES = "select id, status from waitlist_entries where tenant_id = %s"


@dataclass
class Entry:
    """Somebody who waits, for a schedule or for any; `seen` are the slots that were offered, `open` is the offer."""

    schedule: int | None
    rank: tuple[bool, int, int]
    status: str = "waiting"
    seen: set[UUID] = field(default_factory=set)
    open: UUID | None = None


class WaitingGame(Game):
    """The same clinic with people who wait. After each change `offer` offers what has become free."""

    offer: Callable[[], int]

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[UUID, Entry] = {}
        self.offered: set[UUID] = set()
        self.free: set[UUID] = set()

    @rule(schedule=st.sampled_from([None, 0, 1]), priority=st.integers(0, 2))
    def wait(self, schedule: int | None, priority: int) -> None:
        """An entry of the waitlist."""
        of = None if schedule is None else self.schedules[schedule]["id"]
        criteria = '{"days": ["mon"]}' if of is None else f'{{"schedules": ["Schedule/{of}"]}}'
        body: dict[str, Any] = {"resourceType": "Appointment", "status": "waitlist", "priority": priority}
        body["extension"] = [{"url": EXTENSION + "waitlist-criteria", "valueString": criteria}]
        body["participant"] = [{"actor": {"reference": f"Patient/{len(self.entries)}"}, "status": "accepted"}]
        done, made = self._http("POST", "Appointment", body)
        assert done, made
        self.entries[UUID(made["id"][3:])] = Entry(schedule, (priority == 0, priority, len(self.entries)))

    @rule(number=some, api=writers)
    def leave(self, number: int, api: bool) -> None:
        """Somebody waits no more."""
        waiting = {key: entry for key, entry in self.entries.items() if entry.status == "waiting"}
        if not waiting:
            return
        key = self._pick(waiting, number)
        if api:
            patch = [{"op": "replace", "path": "/status", "value": "cancelled"}]
            headers = {"Content-Type": "application/json-patch+json"}
            assert self.clinic.http.patch(f"Appointment/wl-{key}", json=patch, headers=headers).status_code == 200
        else:
            assert self._sql("update waitlist_entries set status = 'deleted' where id = %s", key)
        waiting[key].status = "deleted"

    # offers

    def _tidy(self) -> None:
        super()._tidy()
        self._settle()

    def _settle(self) -> None:
        """Let the worker offer what there is, and follow: each offer goes to the first who asks for the slot."""
        while True:
            type(self).offer()
            # the server's own worker may be at it as well
            ((left,),) = self.other.execute(OPENINGS, [self.clinic.tenant]).fetchall()
            if not left:
                break
        self._end_offers()
        for appointment, entry, slot in self.other.execute(OFFERS, [self.clinic.tenant]).fetchall():
            if appointment not in self.offered:
                self._follow(appointment, entry, slot)

    def _end_offers(self) -> None:
        """What has become of the offers: taken, given back, or taken back from who waits no more."""
        for entry in self.entries.values():
            if entry.open is None:
                continue
            visit = self.diary.visits.get(entry.open)
            if visit is not None and visit.hold and entry.status != "waiting":
                self.diary.lapse([entry.open])
            if visit is None or not visit.hold or entry.status != "waiting":
                entry.open = None
            taken = visit is not None and not visit.hold and visit.status in OCCUPYING - {"pending"}
            if taken and entry.status == "waiting":
                entry.status = "fulfilled"

    def _follow(self, appointment: UUID, entry: UUID, slot: UUID) -> None:
        assert self._first(slot) == entry, "another one was first"
        self.diary.add_visit(appointment, self._offer_of(slot), api=True)
        self.entries[entry].open = appointment
        self.entries[entry].seen.add(slot)
        self.offered.add(appointment)

    def _offer_of(self, key: UUID) -> Visit:
        """The hold; its practitioner is that of the schedule, whom nobody else books."""
        slot = self.diary.slots[key]
        return Visit("pending", (key,), slot.start, slot.end, 2 + slot.schedule, hold=True)

    def _first(self, key: UUID) -> UUID | None:
        """Who is to be offered a slot."""
        schedule = self.diary.slots[key].schedule
        found = [
            (entry.rank, name)
            for name, entry in self.entries.items()
            if entry.status == "waiting" and entry.open is None and key not in entry.seen
            if entry.schedule in (None, schedule)
        ]
        return min(found)[1] if found else None

    @invariant()
    def the_tables_hold_what_the_model_holds(self) -> None:
        """Nobody waits for a slot that has just become free; what is over has lapsed, as the worker lets it first."""
        self._tidy()
        super().the_tables_hold_what_the_model_holds()
        free = {key for key, slot in self.diary.slots.items() if slot.status == "free"}
        before, self.free = self.free, free
        assert not [key for key in free - before if self._first(key) is not None and self.may_be_held(key)]
        assert dict(self.other.execute(ENTRIES, [self.clinic.tenant]).fetchall()) == {
            key: entry.status for key, entry in self.entries.items()
        }


def test_what_the_tables_hold_is_what_the_rules_say(server: Server, database: Database) -> None:
    played(Game, server, database, games=20, moves=40)


def test_what_becomes_free_is_offered_to_the_first_who_waits_for_it(server: Server, database: Database) -> None:
    lanes = Lanes(database.app_url)
    with asyncio.Runner() as runner:
        runner.run(lanes.open())
        worker = Offering(lanes, 3600)
        machine = type("Offered", (WaitingGame,), {"offer": staticmethod(lambda: runner.run(worker.round()))})
        played(machine, server, database, games=10, moves=40)
        runner.run(lanes.close())
