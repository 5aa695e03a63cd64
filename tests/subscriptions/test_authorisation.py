"""Whom a subscription works for: the scopes of who made it, at creation, at each event and at each send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from authority import Authority
from clinic import Clinic, appointment, as_resource, name, refusal
from db import Database
from server import Server
from subscriber import Subscriber, becomes, following, parameter, status

ANN, BOB = "Patient/00000000-0000-4000-8000-0000000000a1", "Patient/00000000-0000-4000-8000-0000000000b2"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """An issuer with an RSA key."""
    return Authority()


@pytest.fixture(scope="module")
def server(database: Database, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens and may send to this machine."""
    keys: Path = tmp_path_factory.mktemp("keys")
    settings = {"issuer": authority.issuer, "jwks_url": authority.write(keys), "audience": "fhir"}
    with Server(database.app_url, auth="smart", allow_private_endpoints="true", **settings) as running:
        yield running


class Practice:
    """A tenant with staff; others come with a token of theirs."""

    def __init__(self, server: Server, database: Database, authority: Authority) -> None:
        self.server, self.database, self.authority, self.tenant = server, database, authority, uuid4()
        self.callers: list[Clinic] = []
        self.staff = self.caller("user/*.cruds", fhirUser="Practitioner/7")

    def caller(self, scope: str, **claims: Any) -> Clinic:
        """The tenant as somebody with that token sees it."""
        made = Clinic(self.server, self.database, self.tenant)
        made.http.close()
        token = self.authority.token(self.tenant, "fhir", scope=scope, **claims)
        made.http = self.server.fhir(self.tenant, headers={"Authorization": f"Bearer {token}"})
        self.callers.append(made)
        return made

    def close(self) -> None:
        """Let go of the connections."""
        for each in self.callers:
            each.close()


@pytest.fixture
def practice(server: Server, database: Database, authority: Authority) -> Iterator[Practice]:
    """A practice for this test."""
    made = Practice(server, database, authority)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("scope", "topic"),
    [
        ("user/Appointment.rs", "appointment-changed"),
        ("user/Subscription.cruds", "appointment-changed"),
        ("user/Subscription.cruds user/Appointment.s", "appointment-changed"),
        ("user/Subscription.cruds user/Appointment.rs", "slot-freed"),
        ("user/Subscription.rs user/Slot.rs", "slot-freed"),
    ],
)
def test_who_may_not_read_what_it_wants_to_hear_of_is_refused(
    practice: Practice, subscriber: Subscriber, scope: str, topic: str
) -> None:
    caller = practice.caller(scope, fhirUser="Practitioner/7")
    refusal(caller.http.post("Subscription", json=subscriber.subscription(topic)), 403)


def test_a_patient_hears_of_its_own_appointments_alone(practice: Practice, subscriber: Subscriber) -> None:
    ann = practice.caller("patient/Subscription.cruds patient/Appointment.rs", patient=ANN, sub="ann")
    following(ann, subscriber, "appointment-changed", content="full-resource")
    practice.staff.create(appointment(patient=BOB))
    group = appointment(patient=ANN, start="2026-06-02T11:00:00Z", end="2026-06-02T11:15:00Z")
    group["participant"].append({"actor": {"reference": BOB, "display": "Bob"}, "status": "accepted"})
    own = practice.staff.create(group)
    practice.staff.http.delete(name(own))
    assert subscriber.events(2) == [{"number": 1, "focus": name(own)}, {"number": 2, "focus": name(own)}]
    post = subscriber.posted(1, "event-notification")[0]  # events that wait come together
    actors = [each["actor"]["reference"] for each in post.bundle["entry"][1]["resource"]["participant"]]
    assert actors == [ANN]
    assert not any(b"Bob" in post.body or BOB.encode() in post.body for post in subscriber.posts)


def test_a_patient_hears_of_free_slots_in_their_public_view(practice: Practice, subscriber: Subscriber) -> None:
    ann = practice.caller("patient/*.cruds", patient=ANN, sub="ann")
    schedule = practice.staff.schedule()
    slot = practice.staff.slot(schedule, "2030-05-06T09:00:00Z", comment="not for patients")
    following(ann, subscriber, "slot-freed", content="full-resource")
    booked = practice.staff.create(appointment(slot, patient=BOB))
    assert practice.staff.put(booked | {"status": "cancelled"}).status_code == 200
    (post,) = subscriber.posted(1, "event-notification")
    shown = post.bundle["entry"][1]["resource"]
    assert (shown["id"], shown["status"]) == (slot["id"], "free")
    assert "comment" not in shown


def test_a_patient_sees_its_own_subscriptions_alone(practice: Practice) -> None:
    elsewhere = Subscriber(url="https://portal.example.org/x")
    ann = practice.caller("patient/*.cruds", patient=ANN, sub="ann")
    bob = practice.caller("patient/*.cruds", patient=BOB, sub="bob")
    anns, bobs = (each.create(elsewhere.subscription("slot-freed")) for each in (ann, bob))
    staffs = practice.staff.create(elsewhere.subscription("slot-freed"))
    assert ann.found("Subscription") == [name(anns)]
    assert sorted(practice.staff.found("Subscription")) == sorted(map(name, (anns, bobs, staffs)))
    for others in (bobs, staffs):
        refusal(ann.http.get(name(others)), 404)
        refusal(ann.http.get(f"{name(others)}/$status"), 404)
        refusal(ann.http.get(f"{name(others)}/$events"), 404)
        refusal(ann.put(others), 405)
        assert ann.http.delete(name(others)).status_code == 204
        practice.staff.read(others)
    told = ann.read("Subscription/$status")
    assert [parameter(each["resource"], "subscription")["valueReference"]["reference"] for each in told["entry"]] == [
        f"{ann.base}/{name(anns)}"
    ]


def test_a_granular_scope_limits_what_is_heard(practice: Practice, subscriber: Subscriber) -> None:
    schedules = [practice.staff.schedule() for _ in range(2)]
    scope = f"user/Subscription.cruds user/Slot.rs?schedule={name(schedules[0])}"
    caller = practice.caller(scope, fhirUser="Practitioner/7")
    following(caller, subscriber, "slot-changed")
    made = [practice.staff.slot(each, "2030-05-06T09:00:00Z") for each in (schedules[1], schedules[0])]
    assert subscriber.events(1) == [{"number": 1, "focus": name(made[1])}]


def test_who_changes_another_s_subscription_gives_it_none_of_its_own_rights(
    practice: Practice, subscriber: Subscriber
) -> None:
    ann = practice.caller("patient/*.cruds", patient=ANN, sub="ann")
    made = following(ann, subscriber, "appointment-changed")
    changed = as_resource(practice.staff.put(made | {"reason": "looked after by staff"}))
    assert (changed["reason"], changed["status"]) == ("looked after by staff", "active")
    practice.staff.create(appointment(patient=BOB))
    own = practice.staff.create(appointment(patient=ANN, start="2026-06-02T11:00:00Z", end="2026-06-02T11:15:00Z"))
    assert subscriber.events(1) == [{"number": 1, "focus": name(own)}]


def test_events_show_each_caller_what_it_may_read(practice: Practice, subscriber: Subscriber) -> None:
    made = following(practice.staff, subscriber, "appointment-changed")
    practice.staff.create(appointment(patient=BOB))
    subscriber.events(1)
    narrow = practice.caller("user/Subscription.r", fhirUser="Practitioner/7")
    bundle = narrow.read(f"{name(made)}/$events?content=full-resource")
    assert len(bundle["entry"]) == 1
    assert [part["name"] for part in parameter(status(bundle), "notification-event")["part"]] == [
        "event-number", "timestamp",
    ]  # fmt: skip


def test_what_was_subscribed_without_tokens_tells_nothing_where_they_are_asked_for(
    practice: Practice, database: Database, subscriber: Subscriber
) -> None:
    with Server(database.app_url, allow_private_endpoints="true", relay="off") as open_server:
        free = Clinic(open_server, database, practice.tenant)
        made = free.create(subscriber.subscription("appointment-changed"))
        wrong = becomes(free, made, "error")
        free.close()
    assert "scopes" in wrong["error"]
    assert subscriber.posts == []


def test_no_tenant_hears_of_another(
    practice: Practice, server: Server, database: Database, authority: Authority, subscriber: Subscriber
) -> None:
    following(practice.staff, subscriber, "appointment-changed")
    other = Practice(server, database, authority)
    other.staff.create(appointment())
    own = practice.staff.create(appointment())
    assert subscriber.events(1) == [{"number": 1, "focus": name(own)}]
    assert other.staff.bundle("Subscription")["total"] == 0
    other.close()
