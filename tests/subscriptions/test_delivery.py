"""What a subscriber gets: notifications as the Backport has them, retries, the error state and its end, heartbeats."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from clinic import Clinic, as_resource, name, said
from fhir_sched.validate import resource_issues
from fhir_sched.xml import from_xml
from subscriber import BACKPORT, TOPIC, WAIT_S, Resource, Subscriber, becomes, events, following, parameter, status

LATER = {"start": "2026-06-02T10:00:00Z", "end": "2026-06-02T10:15:00Z"}


def extension(**numbers: int) -> list[Resource]:
    """Extensions of a channel: heartbeat_period, timeout, max_count."""
    kinds = {"max_count": "valuePositiveInt"}
    return [
        {"url": f"{BACKPORT}backport-{each.replace('_', '-')}", kinds.get(each, "valueUnsignedInt"): number}
        for each, number in numbers.items()
    ]


@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
def test_a_notification_is_a_valid_history_with_a_status_first(
    clinic: Clinic, subscriber: Subscriber, content: str
) -> None:
    made = following(clinic, subscriber, "appointment-changed", content=content)
    booked = clinic.booked()
    (post,) = subscriber.posted(1, "event-notification")
    bundle = post.bundle
    assert resource_issues(bundle, "Bundle") == []
    assert bundle["type"] == "history"
    assert bundle["meta"]["profile"] == [BACKPORT + "backport-subscription-notification-r4"]
    told = status(bundle)
    assert told["meta"]["profile"] == [BACKPORT + "backport-subscription-status-r4"]
    assert bundle["entry"][0]["fullUrl"] == f"urn:uuid:{told['id']}"
    assert bundle["entry"][0]["request"]["url"] == f"{clinic.base}/{name(made)}/$status"
    assert parameter(told, "subscription")["valueReference"]["reference"] == f"{clinic.base}/{name(made)}"
    assert parameter(told, "events-since-subscription-start")["valueString"] == "1"
    named = [each["name"] for each in told["parameter"]]
    assert ("topic" in named) is (content != "empty")
    assert events(bundle) == [{"number": 1, "focus": "" if content == "empty" else name(booked)}]
    expected: list[Any] = [] if content == "empty" else [f"{clinic.base}/{name(booked)}"]
    assert [entry["fullUrl"] for entry in bundle["entry"][1:]] == expected
    resources = [entry["resource"] for entry in bundle["entry"][1:] if "resource" in entry]
    assert resources == ([booked] if content == "full-resource" else [])


def test_handshake_and_events_carry_the_channel_s_headers_and_type(clinic: Clinic, subscriber: Subscriber) -> None:
    asked = subscriber.subscription(
        "appointment-changed",
        header=["Authorization: Bearer s3cret", "X-Empty-Not:a"],
        payload="application/fhir+xml;charset=utf-8",
    )
    made = clinic.create(asked)
    becomes(clinic, made, "active")
    clinic.booked()
    with subscriber.changed:
        assert subscriber.changed.wait_for(lambda: len(subscriber.posts) > 1, 60)
    for post, kind in zip(subscriber.posts, ("handshake", "event-notification"), strict=True):
        assert post.headers["authorization"] == "Bearer s3cret"
        assert post.headers["x-empty-not"] == "a"
        assert post.headers["content-type"] == "application/fhir+xml;charset=utf-8"
        bundle = from_xml(post.body)
        assert resource_issues(bundle, "Bundle") == []
        assert parameter(status(bundle), "type")["valueCode"] == kind


def test_a_handshake_that_is_refused_sets_error_until_the_client_asks_again(
    clinic: Clinic, subscriber: Subscriber
) -> None:
    subscriber.answers += [403]
    made = becomes(clinic, clinic.create(subscriber.subscription("appointment-changed")), "error")
    assert "403" in made["error"]
    clinic.booked()
    eventually(clinic, made, 1)
    assert as_resource(clinic.put(made))["status"] == "error"
    assert as_resource(clinic.put(made | {"status": "requested"}))["status"] == "requested"
    assert "error" not in becomes(clinic, made, "active")
    heard = clinic.booked(**LATER)
    # The first event was counted while it was in error; it is had by $events.
    assert subscriber.events(1) == [{"number": 2, "focus": name(heard)}]


def test_five_failures_in_a_row_set_error_and_what_was_missed_is_had_by_events(
    clinic: Clinic, subscriber: Subscriber
) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    subscriber.answers += [500, 200, 0]
    first = clinic.booked()
    assert [each["number"] for each in subscriber.events(2)] == [1, 1]
    # the relay has yet to write down that the second attempt went well
    end = time.monotonic() + WAIT_S
    while not clinic.sql("select 1 from subscriptions where tenant_id = %s and failures = 0", clinic.tenant):
        assert time.monotonic() < end
        time.sleep(0.02)
    clinic.sql("update subscriptions set failures = 4 where tenant_id = %s", clinic.tenant)
    second = clinic.booked(**LATER)
    wrong = becomes(clinic, made, "error")
    assert "5 attempts in a row failed" in wrong["error"]
    third = clinic.booked(start="2026-06-02T11:00:00Z", end="2026-06-02T11:15:00Z")
    told = clinic.read(f"{name(made)}/$status")["entry"][0]["resource"]
    assert parameter(told, "status")["valueCode"] == "error"
    assert parameter(told, "type")["valueCode"] == "query-status"
    assert parameter(told, "error")["valueCodeableConcept"]["coding"][0]["code"] == "no-response"
    count = len(subscriber.posts)
    wanted = [{"number": number, "focus": name(each)} for number, each in ((1, first), (2, second), (3, third))]
    assert eventually(clinic, made, 3) == wanted
    assert clinic.put(wrong | {"status": "active"}).status_code == 200
    becomes(clinic, made, "active")
    assert parameter(status(subscriber.posted(count + 1)[-1].bundle), "events-since-subscription-start") == {
        "name": "events-since-subscription-start",
        "valueString": "3",
    }
    clinic.http.delete(name(third))
    assert subscriber.events(4)[-1] == {"number": 4, "focus": name(third)}


def eventually(clinic: Clinic, subscription: Resource, count: int) -> list[Resource]:
    """What $events tells, once it tells that many."""
    end = time.monotonic() + WAIT_S
    while len(found := events(clinic.read(f"{name(subscription)}/$events"))) < count:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


def test_an_endpoint_that_hangs_is_left_after_the_channel_s_time_out_and_holds_up_nobody(
    clinic: Clinic, subscriber: Subscriber
) -> None:
    with Subscriber(hang=True).running() as hanging:
        made = clinic.create(hanging.subscription("appointment-changed", extension=extension(timeout=1)))
        other = following(clinic, subscriber, "appointment-changed")
        heard = clinic.booked()
        assert [each["focus"] for each in subscriber.events(1)] == [name(heard)]
        assert re.search("no answer in time", becomes(clinic, made, "error")["error"])
        assert clinic.read(other)["status"] == "active"


def test_events_that_wait_come_together_as_many_as_the_channel_takes(clinic: Clinic, subscriber: Subscriber) -> None:
    asked = subscriber.subscription("slot-changed", extension=extension(max_count=3))
    becomes(clinic, clinic.create(asked), "active")
    schedule = clinic.schedule()
    entries = [
        {
            "request": {"method": "POST", "url": "Slot"},
            "resource": {
                "resourceType": "Slot", "status": "free", "schedule": {"reference": name(schedule)},
                "start": f"2030-05-06T{hour:02}:00:00Z", "end": f"2030-05-06T{hour:02}:30:00Z",
            },
        }
        for hour in range(8)
    ]  # fmt: skip
    made = clinic.http.post("", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert made.status_code == 200, made.text
    assert [each["number"] for each in subscriber.events(8)] == list(range(1, 9))
    sizes = [len(events(post.bundle)) for post in subscriber.posted(3, "event-notification")]
    assert max(sizes) <= 3


def test_a_heartbeat_comes_when_nothing_else_does_and_has_no_number(clinic: Clinic, subscriber: Subscriber) -> None:
    asked = subscriber.subscription("appointment-changed", extension=extension(heartbeat_period=1))
    becomes(clinic, clinic.create(asked), "active")
    clinic.booked()
    subscriber.events(1)
    heartbeats = subscriber.posted(2, "heartbeat")
    for post in heartbeats:
        assert resource_issues(post.bundle, "Bundle") == []
        assert events(post.bundle) == []
    assert parameter(status(heartbeats[-1].bundle), "events-since-subscription-start")["valueString"] == "1"


def test_its_end_turns_it_off(clinic: Clinic, subscriber: Subscriber) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    off = becomes(clinic, as_resource(clinic.put(made | {"end": "2020-01-01T00:00:00Z"})), "off")
    assert off["end"] == "2020-01-01T00:00:00Z"


# $status and $events


def test_status_of_the_type_chooses_by_id_and_status(clinic: Clinic, subscriber: Subscriber) -> None:
    made = [following(clinic, subscriber, topic) for topic in ("slot-freed", "slot-changed")]
    off = as_resource(clinic.put(made[1] | {"status": "off"}))
    for query, found in (
        ("", made), (f"?id={made[0]['id']}", made[:1]), (f"?id={made[0]['id']}&id={off['id']}", made),
        ("?status=off", made[1:]), ("?status=active&status=error", made[:1]), ("?id=sub-nothing", []),
    ):  # fmt: skip
        bundle = clinic.read(f"Subscription/$status{query}")
        assert resource_issues(bundle, "Bundle") == []
        assert bundle["type"] == "searchset"
        shown = {
            parameter(entry["resource"], "subscription")["valueReference"]["reference"]
            for entry in bundle.get("entry", [])
        }
        assert shown == {f"{clinic.base}/{name(each)}" for each in found}, query
        assert bundle["total"] == len(found)
    asked = {"resourceType": "Parameters", "parameter": [{"name": "status", "valueCode": "off"}]}
    posted = as_resource(clinic.http.post("Subscription/$status", json=asked))
    assert parameter(posted["entry"][0]["resource"], "topic")["valueCanonical"] == TOPIC + "slot-changed"
    assert "requested" in said(clinic.http.get("Subscription/$status?status=odd"), 400)
    unprintable = clinic.http.get("Subscription/$status?%06odd=1")
    assert "no parameter" in said(unprintable, 400)
    assert resource_issues(as_resource(unprintable), "OperationOutcome") == []


def test_events_are_replayed_as_they_were(clinic: Clinic, subscriber: Subscriber) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    booked = clinic.booked()
    changed = as_resource(clinic.put(booked | {"comment": "bring the referral"}))
    clinic.http.delete(name(booked))
    assert len(eventually(clinic, made, 3)) == 3
    whole = clinic.read(f"{name(made)}/$events?content=full-resource")
    assert resource_issues(whole, "Bundle") == []
    assert parameter(status(whole), "type")["valueCode"] == "query-event"
    assert [entry.get("resource") for entry in whole["entry"][1:]] == [booked, changed, None]
    part = clinic.read(f"{name(made)}/$events?eventsSinceNumber=2&eventsUntilNumber=2")
    assert events(part) == [{"number": 2, "focus": name(booked)}]
    empty = clinic.read(f"{name(made)}/$events?content=empty")
    assert len(empty["entry"]) == 1
    for wrong in ("eventsSinceNumber=x", "eventsUntilNumber=-1", "content=all", f"eventsSinceNumber={10**30}"):
        said(clinic.http.get(f"{name(made)}/$events?{wrong}"), 400)
    said(clinic.http.get("Subscription/sub-0b5a2f0e-7f0e-4a43-9d8e-6f0c3f6f3a01/$events"), 404)
