"""A clinic that is changed at random, by this API and by other programs, with a small model beside it (`diary.py`).

After each change the tables hold what the model holds, and the laws of `laws.py` hold whatever the model says. `played`
plays: short games, the same each time, or with `FHIR_SCHED_TEST_GAMES` so many new ones, of `FHIR_SCHED_TEST_MOVES`
changes each.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.types.json import Jsonb

from clinic import EXTENSION, PATIENT, Clinic, Resource, schedule
from db import Database
from diary import NEXT, Diary, RefusedError, Slot, Span, Visit
from fhir_sched.scheduling.proposal import Proposal
from laws import LAWS
from server import Server

GAMES = int(os.environ.get("FHIR_SCHED_TEST_GAMES", "0"))
MOVES = int(os.environ.get("FHIR_SCHED_TEST_MOVES", "0"))
PLACES = 8
DAY = datetime(2030, 6, 3, 8, tzinfo=UTC)
DOCTORS = [UUID(f"d0c00000-0000-4000-8000-00000000000{number}") for number in (1, 2)]
SLOT_STATUSES = {
    "free": "free",
    "busy": "busy",
    "busy-unavailable": "blocked",
    "busy-tentative": "busy",
    "entered-in-error": "entered-in-error",
}

places = st.integers(0, PLACES - 1)
some = st.integers(0, 99)
writers = st.booleans()
doctors = st.sampled_from([None, 0, 1])
statuses = st.sampled_from(sorted(NEXT))


def at(place: int) -> str:
    """The instant of a place, UTC."""
    return (DAY + timedelta(minutes=30 * place)).isoformat().replace("+00:00", "Z")


class Game(RuleBasedStateMachine):
    """One clinic with two schedules, changed at random."""

    server: Server
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.clinic = Clinic(self.server, self.database)
        self.other = self.database.connect_admin()
        self.diary = Diary()
        self.schedules: list[Resource] = []
        # two whom anyone books, then those of the two schedules
        self.doctors: list[UUID] = []

    def teardown(self) -> None:
        self.clinic.close()
        self.other.close()

    @initialize()
    def open(self) -> None:
        """Two schedules, whose weeks are empty."""
        self.schedules = [self.clinic.create(schedule()) for _ in range(2)]
        actors = [made["actor"][0]["reference"] for made in self.schedules]
        self.doctors = [*DOCTORS, *(UUID(actor.partition("/")[2]) for actor in actors)]

    # both ways to change something

    def _http(self, method: str, path: str, body: Resource | None = None) -> tuple[bool, Resource]:
        """Whether it was done, and the answer."""
        answer = self.clinic.http.request(method, path, json=body)
        assert answer.status_code in (200, 201, 204, 409, 422), answer.text
        return answer.status_code < 300, answer.json() if answer.content else {}

    def _sql(self, statement: str, *values: Any) -> bool:
        """Whether another program's statement was done, and not refused by a constraint."""
        try:
            self.other.execute(statement.encode(), values)
        except psycopg.errors.IntegrityError:
            return False
        return True

    def _agree(self, done: bool, change: Callable[[], object]) -> None:
        """The model does the same, or refuses the same."""
        why = ""
        try:
            change()
        except RefusedError as refused:
            why = str(refused)
        assert done is not bool(why), why or "refused, and nothing speaks against it"

    def _pick(self, table: dict[UUID, Any], number: int) -> UUID:
        return list(table)[number % len(table)]

    # slots

    @rule(number=st.integers(0, 1), start=places, length=st.integers(1, 2), capacity=st.integers(1, 2), api=writers)
    def add_slot(self, number: int, start: int, length: int, capacity: int, api: bool) -> None:
        """A free slot."""
        self._tidy()  # what a hold that is over kept busy is blocked when it lapses under an exception
        key, slot = uuid4(), Slot(number, start, start + length, capacity=capacity)
        of = self.schedules[number]["id"]
        if api:
            body: Resource = {"resourceType": "Slot", "schedule": {"reference": f"Schedule/{of}"}, "status": "free"}
            body |= {"start": at(start), "end": at(start + length), "extension": self._capacity(slot)}
            done, made = self._http("POST", "Slot", body)
            key = UUID(made["id"][4:]) if done else key
        else:
            insert = "insert into slots (id, tenant_id, schedule_id, start_at, end_at, capacity) values"
            values = (key, self.clinic.tenant, of[4:], at(start), at(start + length), capacity)
            done = self._sql(f"{insert} (%s, %s, %s, %s, %s, %s)", *values)
        self._agree(done, lambda: self.diary.add_slot(key, slot))

    def _capacity(self, slot: Slot) -> list[Resource]:
        return [{"url": EXTENSION + "slot-capacity", "valueInteger": slot.capacity}]

    @rule(number=st.integers(0, 1), opens=places, length=st.integers(0, 5))
    def generate(self, number: int, opens: int, length: int) -> None:
        """The schedule's week becomes another, and its slots follow."""
        self._tidy()
        closes = min(opens + length, PLACES)
        found = {"days": ["mon"], "start": at(opens)[11:16], "end": at(closes)[11:16], "slotMinutes": 30}
        pattern = Jsonb({"rules": [found] if opens < closes else []})
        of = self.schedules[number]["id"]
        self.other.execute("update schedules set availability_pattern = %s where id = %s", [pattern, of[4:]])
        answer = self.clinic.http.post(f"Schedule/{of}/$generate-slots?start={at(0)[:10]}&end={at(0)[:10]}")
        assert answer.status_code == 200, answer.text
        new, more, less = self.diary.generate(number, opens, closes)
        said = {each["name"]: each["valueUnsignedInt"] for each in answer.json()["parameter"]}
        assert said == {"added": more, "withdrawn": less}
        there = self.other.execute("select start_at, id from slots where schedule_id = %s", [of[4:]])
        keys = {start: key for start, key in there if key not in self.diary.slots}
        assert len(keys) == len(new)
        self.diary.slots |= {keys[DAY + timedelta(minutes=30 * slot.start)]: slot for slot in new}

    @precondition(lambda self: self.diary.slots)
    @rule(number=some, status=st.sampled_from(sorted(SLOT_STATUSES)), api=writers)
    def set_slot(self, number: int, status: str, api: bool) -> None:
        """A status by hand."""
        self._tidy()
        key = self._pick(self.diary.slots, number)
        slot, column = self.diary.slots[key], SLOT_STATUSES[status]
        tentative = api and status == "busy-tentative"
        if api:
            of = self.schedules[slot.schedule]["id"]
            body: Resource = {"resourceType": "Slot", "id": f"slt-{key}", "status": status}
            body |= {"schedule": {"reference": f"Schedule/{of}"}, "extension": self._capacity(slot)}
            body |= {"start": at(slot.start), "end": at(slot.end)}
            done, _ = self._http("PUT", f"Slot/slt-{key}", body)
        else:
            done = self._sql("update slots set status = %s where id = %s", column, key)
        self._agree(done, lambda: self.diary.set_slot(key, column, tentative=tentative, api=api))

    @precondition(lambda self: self.diary.slots)
    @rule(number=some, api=writers)
    def delete_slot(self, number: int, api: bool) -> None:
        """A slot goes."""
        key = self._pick(self.diary.slots, number)
        done = self._http("DELETE", f"Slot/slt-{key}")[0] if api else self._sql("delete from slots where id = %s", key)
        self._agree(done, lambda: self.diary.delete_slot(key))

    # appointments

    def _visit(self, visit: Visit, key: UUID | None = None) -> Resource:
        actors = [PATIENT, *([] if visit.doctor is None else [f"Practitioner/{self.doctors[visit.doctor]}"])]
        body: Resource = {"resourceType": "Appointment", "status": visit.status}
        body |= {"start": at(visit.start), "end": at(visit.end)}
        body["participant"] = [{"actor": {"reference": actor}, "status": "accepted"} for actor in actors]
        if visit.slots:
            body["slot"] = [{"reference": f"Slot/slt-{each}"} for each in visit.slots]
        if visit.shared:
            body["extension"] = [{"url": EXTENSION + "allow-double-booking", "valueBoolean": True}]
        return body if key is None else {**body, "id": f"apt-{key}"}

    def _planned(self, numbers: list[int], start: int, most: int) -> tuple[tuple[UUID, ...], int, int]:
        """Some slots with the time that they take together; without any the hour that begins at `start`."""
        keys = tuple(dict.fromkeys(self._pick(self.diary.slots, each) for each in numbers if self.diary.slots))[:most]
        spans: list[Span] = [self.diary.slots[key] for key in keys]
        spans = spans or [Span(0, start, start + 2)]
        return keys, min(each.start for each in spans), max(each.end for each in spans)

    @rule(
        numbers=st.lists(some, max_size=2), start=places, status=statuses, doctor=doctors, shared=st.booleans(),
        api=writers,
    )  # fmt: skip
    def book(self, numbers: list[int], start: int, status: str, doctor: int | None, shared: bool, api: bool) -> None:
        """An appointment of any status; mostly one that occupies."""
        keys, begins, ends = self._planned(numbers, start, 2 if api else 1)
        key, visit = uuid4(), Visit(status, keys, begins, ends, doctor, shared)
        if api:
            done, made = self._http("POST", "Appointment", self._visit(visit))
            key = UUID(made["id"][4:]) if done else key
        else:
            done = self._sql(
                "insert into appointments (id, tenant_id, patient_id, slot_id, status, start_at, end_at, provider_id,"
                " allow_double_booking, created_by) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                key, self.clinic.tenant, PATIENT[8:], keys[0] if keys else None, status, at(begins), at(ends),
                None if doctor is None else self.doctors[doctor], shared, self.clinic.tenant,
            )  # fmt: skip
        self._agree(done, lambda: self.diary.add_visit(key, visit, api=api))

    @precondition(lambda self: self.diary.visits)
    @rule(number=some, status=statuses, api=writers)
    def change_status(self, number: int, status: str, api: bool) -> None:
        """Cancel, arrive, take back."""
        key = self._pick(self.diary.visits, number)
        self._decide(key)
        visit = replace(self.diary.visits[key], status=status)
        if api and visit.reason:
            visit.reason = False
            done, _ = self._http("PUT", f"Appointment/apt-{key}", self._visit(visit, key))
        elif api:
            path, patch = f"Appointment/apt-{key}", [{"op": "replace", "path": "/status", "value": status}]
            headers = {"Content-Type": "application/json-patch+json"}
            answer = self.clinic.http.patch(path, json=patch, headers=headers)
            assert answer.status_code in (200, 409, 422), answer.text
            done = answer.status_code == 200
        else:
            done = self._sql("update appointments set status = %s where id = %s", status, key)
        self._agree(done, lambda: self.diary.change_visit(key, visit, api=api))

    @precondition(lambda self: self.diary.visits)
    @rule(number=some, numbers=st.lists(some, max_size=2), start=places, doctor=doctors, api=writers)
    def reschedule(self, number: int, numbers: list[int], start: int, doctor: int | None, api: bool) -> None:
        """Other slots, another time, another practitioner."""
        key = self._pick(self.diary.visits, number)
        self._decide(key)
        keys, begins, ends = self._planned(numbers, start, 2 if api else 1)
        before = self.diary.visits[key]
        if not api and keys[:1] == before.slots[:1]:
            # whoever knows one slot, and leaves it, leaves the others too
            keys = before.slots
        visit = replace(before, slots=keys, start=begins, end=ends, doctor=doctor)
        if api:
            visit.reason = False
            done, _ = self._http("PUT", f"Appointment/apt-{key}", self._visit(visit, key))
        else:
            update = "update appointments set slot_id = %s, start_at = %s, end_at = %s, provider_id = %s where id = %s"
            provider = None if doctor is None else self.doctors[doctor]
            done = self._sql(update, keys[0] if keys else None, at(begins), at(ends), provider, key)
        self._agree(done, lambda: self.diary.change_visit(key, visit, api=api))

    @precondition(lambda self: self.diary.visits)
    @rule(number=some, api=writers)
    def delete_visit(self, number: int, api: bool) -> None:
        """An appointment goes."""
        key = self._pick(self.diary.visits, number)
        path, statement = f"Appointment/apt-{key}", "delete from appointments where id = %s"
        done = self._http("DELETE", path)[0] if api else self._sql(statement, key)
        self._agree(done, lambda: self.diary.delete_visit(key))

    # holds

    @precondition(lambda self: self.diary.slots)
    @rule(numbers=st.lists(some, min_size=1, max_size=1), doctor=doctors)
    def hold(self, numbers: list[int], doctor: int | None) -> None:
        """A pending appointment that is kept for an hour."""
        keys, begins, ends = self._planned(numbers, 0, 1)
        key, visit = uuid4(), Visit("pending", keys, begins, ends, doctor, hold=True)
        insert = (
            "insert into appointments (id, tenant_id, patient_id, slot_id, status, start_at, end_at, provider_id,"
            " created_by, hold_expires_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, now() + interval '1 hour')"
        )
        values = (key, self.clinic.tenant, PATIENT[8:], keys[0], "pending", at(begins), at(ends))
        done = self._sql(insert, *values, None if doctor is None else self.doctors[doctor], self.clinic.tenant)
        self._agree(done, lambda: self.diary.add_visit(key, visit, api=False))

    def _invoke(self, operation: str, fhir_id: str) -> tuple[bool, Resource]:
        """Whether the operation was done to that appointment or proposal, and what came back."""
        given = {"name": "appointment-reference", "valueReference": {"reference": f"Appointment/{fhir_id}"}}
        return self._http("POST", f"Appointment/${operation}", {"resourceType": "Parameters", "parameter": [given]})

    @precondition(lambda self: self.diary.slots)
    @rule(number=some, operation=st.sampled_from(["hold", "book"]))
    def take_proposal(self, number: int, operation: str) -> None:
        """What $find would propose is held, or booked at once, with the practitioner of the schedule."""
        slot_key = self._pick(self.diary.slots, number)
        slot, key = self.diary.slots[slot_key], uuid4()
        done, found = self._invoke(operation, Proposal(str(slot_key), (), f"Patient/{uuid4()}").id)
        key = UUID(found["entry"][0]["resource"]["id"][4:]) if done else key
        status = "pending" if operation == "hold" else "booked"
        visit = Visit(status, (slot_key,), slot.start, slot.end, 2 + slot.schedule, hold=operation == "hold")
        self._agree(done, lambda: self.diary.add_visit(key, visit, api=True))

    # When a hold that is over lapses, the server's clock decides: no move may be possible or not by that. So what is
    # done to such a hold itself, but for confirming and deleting it, comes after it has lapsed.

    @rule(number=some)
    def confirm(self, number: int) -> None:
        """A hold is booked, unless it is over."""
        holds = {key: visit for key, visit in self.diary.visits.items() if visit.hold}
        if not holds:
            return
        key = self._pick(holds, number)
        visit = replace(self.diary.visits[key], status="booked")
        done, _ = self._invoke("book", f"apt-{key}")
        self._agree(done, lambda: self.diary.change_visit(key, visit, api=True))

    @rule(number=st.sampled_from([None, 0, 1]))
    def find(self, number: int | None) -> None:
        """What is proposed is what is free."""
        self._tidy()
        times = (("start", at(0)), ("end", at(PLACES + 2)))
        given: list[Resource] = [{"name": name, "valueDateTime": moment} for name, moment in times]
        if number is not None:
            actor = self.schedules[number]["actor"][0]["reference"]
            given.append({"name": "practitioner", "valueReference": {"reference": actor}})
        body = {"resourceType": "Parameters", "parameter": given}
        done, found = self._http("POST", "Appointment/$find?_count=50", body)
        assert done, found
        matches = [each["resource"] for each in found["entry"] if each["search"]["mode"] == "match"]
        proposed = [UUID(each["slot"][0]["reference"][9:]) for each in matches]
        assert [each["start"] for each in matches] == sorted(each["start"] for each in matches)
        free = {key for key, slot in self.diary.slots.items() if slot.status == "free"}
        asked = {key for key in free if number in (None, self.diary.slots[key].schedule)}
        assert set(proposed) <= asked
        assert len(proposed) == len(set(proposed))
        assert not [key for key in asked - set(proposed) if self.may_be_held(key)]

    def may_be_held(self, key: UUID) -> bool:
        """Whether a hold of that slot, with the practitioner of its schedule, would be accepted."""
        slot = self.diary.slots[key]
        visit = Visit("pending", (key,), slot.start, slot.end, 2 + slot.schedule, hold=True)
        try:
            copy.deepcopy(self.diary).add_visit(UUID(int=0), visit, api=True)
        except RefusedError:
            return False
        return True

    @rule(number=some)
    def let_time_pass(self, number: int) -> None:
        """A hold is over, and nobody has cleaned up."""
        holds = {key: visit for key, visit in self.diary.visits.items() if visit.hold and not visit.over}
        if not holds:
            return
        key = self._pick(holds, number)
        earlier = "update appointments set hold_expires_at = clock_timestamp() - interval '1 second' where id = %s"
        assert self._sql(earlier, key)
        holds[key].over = True

    @rule()
    def clean_up(self) -> None:
        """What a server does now and then."""
        self._tidy()

    def _tidy(self) -> None:
        """Let all lapse that is over, which a server may have done already."""
        self._lapse([key for key, visit in self.diary.visits.items() if visit.over])

    def _decide(self, key: UUID) -> None:
        """Let that one lapse if it is a hold that is over: pending, it would refuse what cancelled it allows."""
        self._lapse([key] if self.diary.visits[key].over else [])

    def _lapse(self, over: list[UUID]) -> None:
        """Cancelled in the tables, whoever does it: what the server has locked is waited for, not passed over."""
        if over:
            self.other.execute("select fhir_sched_lapse(%s, %s, '{}')", [self.clinic.tenant, over])
            self.diary.lapse(over)

    # exceptions

    @rule(number=st.integers(0, 1), start=places, length=st.integers(1, 3), api=writers)
    def add_pause(self, number: int, start: int, length: int, api: bool) -> None:
        """An exception."""
        self._tidy()
        key, pause = uuid4(), Span(number, start, start + length)
        if api:
            done, made = self._http("POST", "Slot", self._pause(pause))
            key = UUID(made["id"][4:])
        else:
            insert = "insert into schedule_exceptions (id, tenant_id, schedule_id, start_at, end_at) values"
            of = self.schedules[number]["id"][4:]
            done = self._sql(
                f"{insert} (%s, %s, %s, %s, %s)", key, self.clinic.tenant, of, at(start), at(start + length)
            )
        self._agree(done, lambda: self.diary.add_pause(key, pause))

    def _pause(self, pause: Span, key: UUID | None = None) -> Resource:
        kind = [{"url": EXTENSION + "schedule-exception-type", "valueCode": "meeting"}]
        body: Resource = {"resourceType": "Slot", "status": "busy-unavailable", "extension": kind}
        body["schedule"] = {"reference": f"Schedule/{self.schedules[pause.schedule]['id']}"}
        body |= {"start": at(pause.start), "end": at(pause.end)}
        return body if key is None else {**body, "id": f"exc-{key}"}

    @precondition(lambda self: self.diary.pauses)
    @rule(number=some, schedule=st.integers(0, 1), start=places, length=st.integers(1, 3), api=writers)
    def move_pause(self, number: int, schedule: int, start: int, length: int, api: bool) -> None:
        """An exception is at another time, perhaps of the other schedule."""
        self._tidy()
        key, pause = self._pick(self.diary.pauses, number), Span(schedule, start, start + length)
        if api:
            done, _ = self._http("PUT", f"Slot/exc-{key}", self._pause(pause, key))
        else:
            update = "update schedule_exceptions set schedule_id = %s, start_at = %s, end_at = %s where id = %s"
            done = self._sql(update, self.schedules[schedule]["id"][4:], at(start), at(start + length), key)
        self._agree(done, lambda: self.diary.move_pause(key, pause))

    @precondition(lambda self: self.diary.pauses)
    @rule(number=some, api=writers)
    def delete_pause(self, number: int, api: bool) -> None:
        """An exception goes."""
        self._tidy()
        key = self._pick(self.diary.pauses, number)
        statement = "delete from schedule_exceptions where id = %s"
        done = self._http("DELETE", f"Slot/exc-{key}")[0] if api else self._sql(statement, key)
        self._agree(done, lambda: self.diary.delete_pause(key))

    # what always holds

    @invariant()
    def the_tables_hold_what_the_model_holds(self) -> None:
        """Every row is known, and as it is known."""
        tenant = self.clinic.tenant
        slots = "select id, status, excepted, fhir_status = 'busy-tentative' from slots where tenant_id = %s"
        visits = (
            "select id, status, array_remove(slot_id || extra_slot_ids, null) from appointments where tenant_id = %s"
        )
        pauses = "select id from schedule_exceptions where tenant_id = %s"
        # one moment for all tables: a hold may lapse between two looks
        with self.other.transaction():
            self.other.execute("set transaction isolation level repeatable read")
            found = self.other.execute(visits, [tenant]).fetchall()
            rows = {key: tuple(rest) for key, *rest in self.other.execute(slots, [tenant])}
            paused = {key for (key,) in self.other.execute(pauses, [tenant])}
        # A hold that is over may lapse at any moment.
        self.diary.lapse([key for key, status, _ in found if status == "cancelled" and self.diary.visits[key].over])
        assert {key: (status, set(held)) for key, status, held in found} == {
            key: (visit.status, set(visit.slots)) for key, visit in self.diary.visits.items()
        }
        for key, slot in self.diary.slots.items():
            slot.tentative = rows[key][2] if slot.held else slot.tentative
        assert rows == {key: (slot.status, slot.excepted, slot.tentative) for key, slot in self.diary.slots.items()}
        assert paused == set(self.diary.pauses)

    @invariant()
    def no_law_is_broken(self) -> None:
        """What must hold whatever the model says."""
        assert self.other.execute(LAWS, {"t": self.clinic.tenant}).fetchall() == []


def played(machine: type[Game], server: Server, database: Database, games: int, moves: int) -> None:
    """Play so many games of so many moves, or as many as the environment asks for."""
    wanted = settings(
        max_examples=GAMES or games,
        stateful_step_count=MOVES or moves,
        derandomize=not GAMES,
        database=None,
        deadline=None,
        # to look for a shorter game that fails takes minutes, which are for who plays on purpose
        phases=[Phase.generate, Phase.shrink] if GAMES else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(type("Played", (machine,), {"server": server, "database": database}), settings=wanted)
