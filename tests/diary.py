"""What a schedule ought to be after each change: the rules of docs/booking.md once more, small enough to be seen whole.

Times are whole numbers, half hours of one day. What the rules forbid raises `RefusedError` and changes nothing. `api` says who changes: this API, or another program by SQL. Knows neither HTTP nor SQL.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

OCCUPYING = frozenset({"pending", "booked", "arrived", "fulfilled", "noshow"})
NEXT = {
    "proposed": {"pending", "booked", "arrived", "cancelled", "entered-in-error"},
    "pending": {"proposed", "booked", "arrived", "noshow", "cancelled", "entered-in-error"},
    "booked": {"proposed", "pending", "arrived", "fulfilled", "noshow", "cancelled", "entered-in-error"},
    "arrived": {"booked", "fulfilled", "noshow", "cancelled", "entered-in-error"},
    "fulfilled": {"arrived", "noshow", "entered-in-error"},
    "noshow": {"booked", "arrived", "cancelled", "entered-in-error"},
    "cancelled": {"proposed", "pending", "booked", "noshow", "entered-in-error"},
    "entered-in-error": set(),
}


class RefusedError(Exception):
    """The rules forbid the change."""


@dataclass
class Span:
    """A piece of a schedule's time."""

    schedule: int
    start: int
    end: int

    def overlaps(self, other: Span) -> bool:
        """Whether the two are at the same time of one schedule."""
        return self.schedule == other.schedule and self.start < other.end and other.start < self.end


@dataclass
class Slot(Span):
    """A slot; `excepted`: blocked by exceptions alone, `tentative`: busy by hand until an appointment takes it."""

    status: str = "free"
    excepted: bool = False
    tentative: bool = False


@dataclass
class Visit:
    """An appointment. `doctor` is None for one that occupies no practitioner."""

    status: str
    slots: tuple[UUID, ...]
    start: int
    end: int
    doctor: int | None = None
    shared: bool = False

    @property
    def holds(self) -> frozenset[UUID]:
        """The slots that it occupies."""
        return frozenset(self.slots) if self.status in OCCUPYING else frozenset()

    def meets(self, other: Visit) -> bool:
        """Whether both need one practitioner at one time."""
        both = self.status in OCCUPYING and other.status in OCCUPYING and self.doctor is not None
        alone = not self.shared and not other.shared and self.doctor == other.doctor
        return both and alone and self.start < other.end and other.start < self.end


@dataclass
class Diary:
    """Every slot, appointment and exception by its UUID."""

    slots: dict[UUID, Slot] = field(default_factory=dict)
    visits: dict[UUID, Visit] = field(default_factory=dict)
    pauses: dict[UUID, Span] = field(default_factory=dict)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All of what is done inside, or, when it is refused, nothing."""
        before = copy.deepcopy((self.slots, self.visits, self.pauses))
        try:
            yield
        except RefusedError:
            self.slots, self.visits, self.pauses = before
            raise

    # what is so

    def covered(self, span: Span) -> bool:
        """Whether an exception is at that time."""
        return any(span.overlaps(pause) for pause in self.pauses.values())

    def holders(self, key: UUID) -> list[UUID]:
        """The appointments that occupy a slot."""
        return [visit_key for visit_key, visit in self.visits.items() if key in visit.holds]

    def _meets_another(self, key: UUID) -> bool:
        slot = self.slots[key]
        return any(
            slot.overlaps(other) and other.status in ("free", "busy")
            for other_key, other in self.slots.items()
            if other_key != key
        )

    def _settle(self, key: UUID) -> None:
        """A slot that was made free is blocked under an exception, and nothing free or busy overlaps."""
        slot = self.slots[key]
        slot.tentative = slot.tentative and slot.status == "busy"
        slot.excepted = slot.status == "free" and self.covered(slot)
        if slot.excepted:
            slot.status = "blocked"
        if slot.status in ("free", "busy") and self._meets_another(key):
            raise RefusedError("slots overlap")

    # slots

    def add_slot(self, key: UUID, slot: Slot) -> None:
        """A new slot."""
        with self.whole():
            self.slots[key] = slot
            self._settle(key)

    def set_slot(self, key: UUID, status: str, *, tentative: bool = False, api: bool) -> None:
        """Another status by hand."""
        with self.whole():
            slot = self.slots[key]
            if status == "free" and slot.status != "free" and self.holders(key):
                if api:
                    raise RefusedError("occupied")
                return
            if (status == "blocked" and slot.excepted) or (status == slot.status and not api):
                return
            slot.status, slot.tentative = status, tentative
            self._settle(key)

    def delete_slot(self, key: UUID) -> None:
        """The slot goes, unless an appointment of whatever status names it."""
        if any(key in visit.slots for visit in self.visits.values()):
            raise RefusedError("an appointment names it")
        del self.slots[key]

    def generate(self, schedule: int, opens: int, closes: int, since: int) -> list[Slot]:
        """The slots that the rule `opens` to `closes` gives where nothing is yet, and what it takes back."""
        taken: list[Span] = [slot for slot in self.slots.values() if slot.status != "entered-in-error"]
        taken += self.pauses.values()
        wanted = [Slot(schedule, start, start + 1) for start in range(opens, closes) if start >= since]
        return [slot for slot in wanted if not any(slot.overlaps(span) for span in taken)]

    # appointments

    def add_visit(self, key: UUID, visit: Visit, *, api: bool) -> None:
        """A new appointment."""
        with self.whole():
            self._put_visit(key, None, visit, api=api)

    def change_visit(self, key: UUID, visit: Visit, *, api: bool) -> None:
        """The appointment becomes another: status, slots, time, practitioner."""
        before = self.visits[key]
        if api and visit.status != before.status and visit.status not in NEXT[before.status]:
            raise RefusedError("the order of statuses")
        with self.whole():
            self._put_visit(key, before, visit, api=api)

    def delete_visit(self, key: UUID) -> None:
        """The appointment goes and gives back what it holds."""
        visit = self.visits.pop(key)
        self._give_back(visit.holds)

    def _put_visit(self, key: UUID, before: Visit | None, visit: Visit, *, api: bool) -> None:
        had = before.holds if before is not None else frozenset()
        promised = before.slots if before is not None and before.status in ("proposed", "pending") else ()
        self.visits[key] = visit
        for gained in visit.holds - had:
            self._take(gained, key, kept=gained in promised, api=api)
        self._give_back(had - visit.holds)
        if any(visit.meets(other) for other_key, other in self.visits.items() if other_key != key):
            raise RefusedError("the practitioner has another appointment")

    def _take(self, slot_key: UUID, visit_key: UUID, *, kept: bool, api: bool) -> None:
        slot, shared = self.slots[slot_key], self.visits[visit_key].shared
        held = self.holders(slot_key) != [visit_key]
        if slot.status not in ("free", "busy"):
            raise RefusedError("blocked")
        if held and not shared:
            raise RefusedError("taken")
        if slot.status == "busy":
            if not held and not shared and api and not (slot.tentative and kept):
                raise RefusedError("busy by hand")
            if self.covered(slot):
                raise RefusedError("blocked")
        slot.status, slot.tentative = "busy", False

    def _give_back(self, keys: Iterable[UUID]) -> None:
        for key in keys:
            if self.slots[key].status == "busy" and not self.holders(key):
                self.slots[key].status = "free"
                self._settle(key)

    # exceptions

    def add_pause(self, key: UUID, pause: Span) -> None:
        """A new exception: what is free at its time is blocked."""
        self.pauses[key] = pause
        for slot in self.slots.values():
            if slot.status == "free" and slot.overlaps(pause):
                slot.status, slot.excepted = "blocked", True

    def move_pause(self, key: UUID, pause: Span) -> None:
        """The exception is at another time."""
        before = self.pauses[key]
        self.add_pause(key, pause)
        self._uncover(before)

    def delete_pause(self, key: UUID) -> None:
        """The exception goes: what only it blocked is free, but for what would overlap another slot."""
        self._uncover(self.pauses.pop(key))

    def _uncover(self, pause: Span) -> None:
        for key in sorted(self.slots):
            slot = self.slots[key]
            if slot.excepted and slot.overlaps(pause) and not self.covered(slot):
                slot.excepted = False
                if not self._meets_another(key) and not self.holders(key):
                    slot.status = "free"
