"""What a schedule ought to be after each change: the rules of docs/booking.md once more, small enough to be seen whole.

Times are whole numbers, half hours of one day. What the rules forbid raises `RefusedError` and changes nothing. `api`
says who changes: this API, or another program by SQL. Knows neither HTTP nor SQL.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
    """A slot; `excepted`: blocked by exceptions alone, `tentative`: busy by hand until an appointment takes it.

    `held`: a hold has been in it, which says tentative as well. `made`: by the rules of availability, `withdrawn`: they
    took it back.
    """

    status: str = "free"
    capacity: int = 1
    excepted: bool = False
    tentative: bool = False
    held: bool = False
    made: bool = False
    withdrawn: bool = False


@dataclass
class Visit:
    """An appointment. `doctor` is None for one that occupies no practitioner.

    `hold`: a pending one that is kept for a time, `over`: that time has passed, and nobody has cleaned up. `reason`: it
    says why it was cancelled, which R4 allows for a cancelled one alone.
    """

    status: str
    slots: tuple[UUID, ...]
    start: int
    end: int
    doctor: int | None = None
    shared: bool = False
    hold: bool = False
    over: bool = False
    reason: bool = False

    @property
    def holds(self) -> frozenset[UUID]:
        """The slots that it occupies."""
        return frozenset(self.slots) if self.status in OCCUPYING else frozenset()

    @property
    def needs(self) -> int | None:
        """The practitioner whose time it takes."""
        return self.doctor if self.status in OCCUPYING and not self.shared else None


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

    def occupants(self, key: UUID, besides: UUID | None = None) -> int:
        """How many appointments occupy a slot; a hold that is over does not."""
        return sum(key in visit.holds and not visit.over for other, visit in self.visits.items() if other != besides)

    def full(self, key: UUID) -> bool:
        """Whether a slot has no room left."""
        return self.occupants(key) >= self.slots[key].capacity

    def _times(self, key: UUID) -> list[tuple[int, int, UUID]]:
        """When an appointment takes its practitioner's time, each with the group that may be there together."""
        visit = self.visits[key]
        common = [each for each in visit.slots if self.slots[each].capacity > 1]
        if len(visit.slots) > 1 and len(common) == len(visit.slots):
            spans = [(self.slots[each].start, self.slots[each].end, each) for each in common]
            parts = [(max(start, visit.start), min(end, visit.end), each) for start, end, each in spans]
            return [part for part in parts if part[0] < part[1]]
        alone = common[0] if len(visit.slots) == 1 and common else key
        return [(visit.start, visit.end, alone)]

    def meets(self, key: UUID, other: UUID) -> bool:
        """Whether both need one practitioner at one time, and not in one slot that they share."""
        doctor = self.visits[key].needs
        return doctor is not None and doctor == self.visits[other].needs and self._same_time(key, other, apart=True)

    def _same_time(self, key: UUID, other: UUID, *, apart: bool = False) -> bool:
        return any(
            one[0] < two[1] and two[0] < one[1] and not (apart and one[2] == two[2])
            for one in self._times(key)
            for two in self._times(other)
        )

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
            if status == "free" and slot.status != "free" and self.full(key):
                if api:
                    raise RefusedError("occupied")
                return
            if (status == "blocked" and slot.excepted) or (status == slot.status and not api):
                return
            slot.status, slot.tentative = status, tentative
            slot.withdrawn = slot.withdrawn and status == "entered-in-error"
            self._settle(key)

    def delete_slot(self, key: UUID) -> None:
        """The slot goes, unless an appointment of whatever status names it."""
        if any(key in visit.slots for visit in self.visits.values()):
            raise RefusedError("an appointment names it")
        del self.slots[key]

    def generate(self, schedule: int, opens: int, closes: int) -> tuple[list[Slot], int, int]:
        """Follow the rule `opens` to `closes`: the new slots, how many more there are, how many less."""
        made = {slot.start: slot for slot in self.slots.values() if slot.made and slot.schedule == schedule}
        named = {key for visit in self.visits.values() for key in visit.holds}
        less = 0
        for key, slot in self.slots.items():
            outside = slot.made and slot.schedule == schedule and not opens <= slot.start < closes
            if outside and key not in named and (slot.status == "free" or slot.excepted):
                slot.status, slot.excepted, slot.withdrawn = "entered-in-error", False, True
                less += 1
        taken: list[Span] = [slot for slot in self.slots.values() if slot.status != "entered-in-error"]
        taken += self.pauses.values()
        wanted = [Slot(schedule, start, start + 1, made=True) for start in range(opens, closes)]
        wanted = [slot for slot in wanted if not any(slot.overlaps(span) for span in taken)]
        back = [made[slot.start] for slot in wanted if slot.start in made and made[slot.start].withdrawn]
        for slot in back:
            slot.status, slot.withdrawn = "free", False
        new = [slot for slot in wanted if slot.start not in made]
        return new, len(new) + len(back), less

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
        if before.over and (visit.status == "pending" or visit.status in OCCUPYING) and visit != before:
            raise RefusedError("the hold is over")
        if visit.status != "pending":
            visit.hold = visit.over = False
        with self.whole():
            self._put_visit(key, before, visit, api=api)

    def delete_visit(self, key: UUID) -> None:
        """The appointment goes and gives back what it holds."""
        visit = self.visits.pop(key)
        self._give_back(visit.holds)

    def _put_visit(self, key: UUID, before: Visit | None, visit: Visit, *, api: bool) -> None:
        had = before.holds if before is not None else frozenset()
        named = before.slots if before is not None and before.status in ("proposed", "pending") else ()
        promised = [each for each in named if self.slots[each].tentative]
        gained = visit.holds - had
        self.visits[key] = visit
        moved = before is None or replace(before, status=visit.status) != visit or before.holds != visit.holds
        cleared = self._clear_way(key, gained, moved=moved)
        for slot_key in gained:
            self._take(slot_key, key, kept=slot_key in promised or slot_key in cleared, api=api)
        self._give_back(had - visit.holds)
        if any(self.meets(key, other) for other in self.visits if other != key):
            raise RefusedError("the practitioner has another appointment")

    def _clear_way(self, key: UUID, gained: frozenset[UUID], *, moved: bool) -> frozenset[UUID]:
        """Let holds lapse that are over and in the way; the slots on which they were."""
        own = self.visits[key]
        others = {other: visit for other, visit in self.visits.items() if visit.over and other != key}
        found = [
            other
            for other, visit in others.items()
            if visit.holds & gained
            or (moved and own.needs is not None and own.needs == visit.needs and self._same_time(key, other))
        ]
        cleared = frozenset().union(*(others[other].holds for other in found))
        self.lapse(found)
        return cleared

    def lapse(self, keys: Iterable[UUID]) -> None:
        """Holds that are over become cancelled."""
        for key in keys:
            visit = self.visits[key]
            had = visit.holds
            self.visits[key] = replace(visit, status="cancelled", hold=False, over=False, reason=True)
            self._give_back(had)

    def _take(self, slot_key: UUID, visit_key: UUID, *, kept: bool, api: bool) -> None:
        slot, visit = self.slots[slot_key], self.visits[visit_key]
        others = self.occupants(slot_key, visit_key)
        slot.held = slot.held or visit.hold
        if slot.status not in ("free", "busy"):
            raise RefusedError("blocked")
        if others >= slot.capacity and not visit.shared:
            raise RefusedError("taken")
        if slot.status == "busy":
            if others < slot.capacity and not visit.shared and api and not kept:
                raise RefusedError("busy by hand")
            if self.covered(slot):
                raise RefusedError("blocked")
            slot.tentative = slot.tentative and visit.hold
        elif others + 1 >= slot.capacity:
            slot.status = "busy"

    def _give_back(self, keys: Iterable[UUID]) -> None:
        for key in keys:
            if self.slots[key].status == "busy" and not self.full(key):
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
                if not self._meets_another(key) and not self.full(key):
                    slot.status = "free"
