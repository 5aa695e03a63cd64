"""What $find proposes can be booked, whatever the rules say and whoever is elsewhere; and all that can is proposed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authority import Authority
from clinic import EXTENSION, Resource, as_resource, name, row_id
from db import Database
from practice import ANN, Practice
from proposals import held, proposal, reference
from server import Server

PLACES = (-90, -30, 20, 50, 80, 7200, 60000)
"""When slots of half an hour begin, in minutes from now: before now, soon, days and weeks ahead."""

places = st.integers(0, len(PLACES) - 1)
whose = st.integers(0, 3)
rules = st.lists(
    st.tuples(
        st.sampled_from(["portal", "staff"]),
        st.sampled_from([None, 0, 1, 2]),
        st.one_of(
            st.tuples(st.sampled_from(["future-only", "adjacent-slots", "times-of-slots"]), st.integers(0, 1)),
            st.tuples(st.just("book-notice"), st.sampled_from([None, 0, 60, 1440])),
            st.tuples(st.just("book-horizon"), st.sampled_from([None, 0, 1, 10])),
        ),
    ),
    max_size=4,
    unique_by=lambda each: (each[0], each[1], each[2][0]),
)
events = st.lists(
    st.tuples(st.sampled_from(["book", "hold", "lapse", "except", "several", "elsewhere"]), whose, places), max_size=6
)


class Doctors(Practice):
    """The first of two doctors has two schedules, one is of both, a room has one."""

    def __init__(self, server: Server, database: Database, authority: Authority) -> None:
        super().__init__(server, database, authority)
        self.doctors = [f"Practitioner/{uuid4()}", "Practitioner/second"]
        self.room = f"Location/{uuid4()}"
        one, two = self.doctors
        self.schedules = [self._of(actors) for actors in ([one], [one], [one, two], [self.room])]
        now = datetime.now(UTC).replace(microsecond=0)
        self.starts = [now + timedelta(minutes=each) for each in PLACES]
        self.slots = [[self._slot(of, start) for start in self.starts] for of in self.schedules]
        closed = self._of([one], active=False)
        self._slot(closed, self.starts[2])

    def _of(self, actors: list[str], **elements: Any) -> Resource:
        return self.schedule(actor=[{"reference": each} for each in actors], **elements)

    def _slot(self, of: Resource, start: datetime) -> Resource:
        return self.slot(of, start.isoformat().replace("+00:00", "Z"), 30)

    def happen(self, what: str, of: int, place: int) -> None:
        """Something that may be in the way of a slot; what can't be done is left."""
        slot = self.slots[of][place]
        doctor = {"actor": {"reference": self.doctors[place % 2]}, "status": "accepted"}
        patient = {"actor": {"reference": f"Patient/{uuid4()}"}, "status": "accepted"}
        if what == "book":
            self.book(slot)
        elif what in ("hold", "lapse"):
            answer = self.http.post("Appointment/$hold", json=reference(proposal(slot, f"Patient/{uuid4()}")))
            if what == "lapse" and answer.status_code == 200:
                hold = as_resource(answer)["entry"][0]["resource"]
                past = "update appointments set hold_expires_at = clock_timestamp() - interval '1 second' where id = %s"
                self.sql(past, row_id(hold))
        elif what == "except":
            self.create(
                {
                    "resourceType": "Slot", "schedule": slot["schedule"], "status": "busy-unavailable",
                    "start": slot["start"], "end": slot["end"],
                    "extension": [{"url": EXTENSION + "schedule-exception-type", "valueCode": "meeting"}],
                }
            )  # fmt: skip
        elif what == "several":
            self.sql("update slots set capacity = 2 where id = %s and status in ('free', 'busy')", row_id(slot))
            self.book(slot)
        else:
            start, end = self.starts[place] - timedelta(days=of), self.starts[place] + timedelta(minutes=10)
            body = {"resourceType": "Appointment", "status": "booked", "participant": [patient, doctor]}
            times = {"start": start.isoformat(), "end": end.isoformat()}
            self.http.post("Appointment", json={**body, **times})

    def proposed(self, client: httpx.Client, *named: str) -> list[Resource]:
        """The proposals, all pages of them, of a time that begins before the first slot and ends after the last."""
        window = ((self.starts[0], "start"), (self.starts[-1] + timedelta(days=1), "end"))
        given: list[Resource] = [{"name": what, "valueDateTime": at.isoformat()} for at, what in window]
        given.append({"name": "patient-reference", "valueReference": {"reference": ANN}})
        for each in named:
            what = "practitioner" if each.startswith("Practitioner") else "location-reference"
            given.append({"name": what, "valueReference": {"reference": each}})
        answer = client.post("Appointment/$find?_count=7", json={"resourceType": "Parameters", "parameter": given})
        proposed: list[Resource] = []
        while True:
            assert answer.status_code == 200, answer.text
            bundle = as_resource(answer)
            proposed += [each["resource"] for each in bundle["entry"] if each["search"]["mode"] == "match"]
            further = [each["url"] for each in bundle["link"] if each["relation"] == "next"]
            if not further:
                return proposed
            answer = client.get(further[0])

    def booked_and_undone(self, client: httpx.Client, fhir_id: str) -> httpx.Response:
        """The answer to $book; what it booked is gone afterwards."""
        answer = client.post("Appointment/$book", json=reference(fhir_id))
        if answer.status_code == 200:
            made = as_resource(answer)["entry"][0]["resource"]
            self.sql("delete from appointments where id = %s", row_id(made))
        return answer


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(rules=rules, events=events, patient=st.booleans())
def test_every_proposal_can_be_booked_and_nothing_else_can(
    guarded: Server, database: Database, authority: Authority, rules: Any, events: Any, patient: bool
) -> None:
    practice = Doctors(guarded, database, authority)
    try:
        for what in events:
            practice.happen(*what)
        for caller, of, (rule, value) in rules:
            practice.rule(rule, value, caller, None if of is None else practice.schedules[of])
        client = practice.ann if patient else practice.http
        for named in ([], practice.doctors[:1], practice.doctors, [practice.doctors[0], practice.room]):
            proposed = practice.proposed(client, *named)
            for each in proposed:
                answer = practice.booked_and_undone(client, each["id"])
                assert answer.status_code == 200, (named, each, answer.text)
            if not named:
                left = {each["slot"][0]["reference"] for each in proposed}
                for slot in (each for listed in practice.slots for each in listed if name(each) not in left):
                    answer = practice.booked_and_undone(client, proposal(slot, ANN))
                    assert answer.status_code in (409, 422), (slot, answer.text)
    finally:
        practice.close()


def test_a_page_of_times_at_which_another_is_elsewhere_says_that_there_are_more(
    guarded: Server, database: Database, authority: Authority
) -> None:
    practice = Doctors(guarded, database, authority)
    second = practice.doctors[1]
    times = [(each, each + timedelta(minutes=10)) for each in practice.starts]
    for start, end in times:
        body: Resource = {"resourceType": "Appointment", "status": "booked"}
        body |= {"start": start.isoformat(), "end": end.isoformat()}
        listed = [f"Patient/{uuid4()}", second]
        body["participant"] = [{"actor": {"reference": each}, "status": "accepted"} for each in listed]
        practice.create(body)
    assert practice.proposed(practice.http, second) == []
    practice.close()


def test_a_hold_that_is_over_is_not_proposed_under_an_exception(
    guarded: Server, database: Database, authority: Authority
) -> None:
    practice = Doctors(guarded, database, authority)
    slot = practice.slots[0][4]
    kept = held(practice, slot)
    practice.happen("except", 0, 4)
    past = "update appointments set hold_expires_at = clock_timestamp() - interval '1 second' where id = %s"
    practice.sql(past, row_id(kept))
    assert name(slot) not in [each["slot"][0]["reference"] for each in practice.proposed(practice.http)]
    practice.close()
