"""Subscription as a resource: create, read, update, delete, search, and everything that is refused."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from clinic import Clinic, as_resource, matches, name, refusal, said
from server import Server
from subscriber import BACKPORT, TOPIC, Resource, Subscriber, becomes, following

NOWHERE = Subscriber(url="https://portal.example.org/notify")


def test_a_subscription_is_requested_until_the_endpoint_has_answered_the_handshake(
    clinic: Clinic, subscriber: Subscriber
) -> None:
    made = clinic.http.post("Subscription", json=subscriber.subscription("slot-freed") | {"status": "active"})
    assert made.status_code == 201, made.text
    assert as_resource(made)["status"] == "requested"
    assert made.headers["ETag"] == 'W/"1"'
    (handshake,) = subscriber.posted(1)
    assert handshake.kind == "handshake"
    active = becomes(clinic, as_resource(made), "active")
    assert active["meta"]["versionId"] == "2"
    assert "identifier" not in active


def test_it_comes_back_as_it_was_written_with_its_state(clinic: Clinic, subscriber: Subscriber) -> None:
    written = subscriber.subscription(
        "appointment-changed", "Appointment?patient=Patient/123", header=["X-Subscriber-Token: abc"],
        extension=[{"url": BACKPORT + "backport-heartbeat-period", "valueUnsignedInt": 300},
                   {"url": BACKPORT + "backport-timeout", "valueUnsignedInt": 60},
                   {"url": BACKPORT + "backport-max-count", "valuePositiveInt": 20}],
    ) | {"end": "2030-12-31T12:00:00+02:00", "contact": [{"system": "email", "value": "it@example.org"}],
         "meta": {"profile": [BACKPORT + "backport-subscription"]}, "error": "no error of the client's"}  # fmt: skip
    made = clinic.create(written)
    del written["error"]
    assert {key: value for key, value in made.items() if key not in ("id", "meta")} == {
        key: value for key, value in written.items() if key != "meta"
    }
    assert made["meta"]["profile"] == [BACKPORT + "backport-subscription"]
    xml = clinic.http.get(name(made), headers={"Accept": "application/fhir+xml"})
    assert 'valueString value="Appointment?patient=Patient/123"' in xml.text


def test_the_published_example_is_accepted_for_a_topic_of_ours(clinic: Clinic) -> None:
    example = {
        "resourceType": "Subscription", "id": "appt-change", "status": "requested", "reason": "Notify of changes",
        "criteria": TOPIC + "appointment-changed",
        "channel": {
            "type": "rest-hook", "endpoint": "https://client.example.org/notify", "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": BACKPORT + "backport-payload-content", "valueCode": "id-only"}]},
        },
    }  # fmt: skip
    assert clinic.create(example)["id"].startswith("sub-")


REFUSED: list[tuple[str, Resource, str]] = [
    ("a topic of nobody's", {"criteria": "http://example.org/topic"}, "Subscription.criteria"),
    ("criteria of R4's own kind", {"criteria": "Appointment?status=booked"}, "Subscription.criteria"),
    ("another channel", {"channel": {"type": "email"}}, "Subscription.channel.type"),
    ("a websocket", {"channel": {"type": "websocket"}}, "Subscription.channel.type"),
    (
        "a channel type of one's own",
        {
            "channel": {
                "_type": {"extension": [{"url": BACKPORT + "backport-channel-type", "valueCoding": {"code": "x"}}]}
            }
        },
        "Subscription.channel.type",
    ),
    ("no endpoint", {"channel": {"endpoint": None}}, "Subscription.channel.endpoint"),
    ("no web address", {"channel": {"endpoint": "ftp://example.org/x"}}, "Subscription.channel.endpoint"),
    ("no payload", {"channel": {"payload": None}}, "Subscription.channel.payload"),
    ("a payload of another kind", {"channel": {"payload": "text/plain"}}, "Subscription.channel.payload"),
    ("no word on the content", {"channel": {"_payload": None}}, "Subscription.channel.payload"),
    (
        "content of another kind",
        {"channel": {"_payload": {"extension": [{"url": BACKPORT + "backport-payload-content", "valueCode": "all"}]}}},
        "Subscription.channel.payload",
    ),
    ("a header that is none", {"channel": {"header": ["Authorization"]}}, "Subscription.channel.header[0]"),
    ("two headers in one", {"channel": {"header": ["A: b\r\nHost: x"]}}, "Subscription.channel.header[0]"),
    ("a header of the server's", {"channel": {"header": ["Host: elsewhere"]}}, "Subscription.channel.header[0]"),
    (
        "a time-out beyond a minute",
        {"channel": {"extension": [{"url": BACKPORT + "backport-timeout", "valueUnsignedInt": 61}]}},
        "Subscription.channel.extension",
    ),
]


@pytest.mark.parametrize(("changed", "where"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_not_served_is_refused_when_it_is_asked_for(clinic: Clinic, changed: Resource, where: str) -> None:
    asked = NOWHERE.subscription("slot-freed")
    channel = {**asked["channel"], **changed.get("channel", {})}
    asked |= {**changed, "channel": {key: value for key, value in channel.items() if value is not None}}
    answer = clinic.http.post("Subscription", json=asked)
    assert [issue["expression"] for issue in refusal(answer, 422)] == [[where]]


@pytest.mark.parametrize(
    "text",
    [
        "Appointment?status=booked", "Slot", "Slot?", "status=free", "Slot?statsu=free", "Slot?status:wrong=free",
        "Slot?start=yesterday", "Slot?_sort=start", "Slot?_count=3", "Slot?schedule.nothing=1",
        "Slot?_include=Slot:schedule",
    ],
)  # fmt: skip
def test_a_filter_that_is_not_understood_is_refused(clinic: Clinic, text: str) -> None:
    answer = clinic.http.post("Subscription", json=NOWHERE.subscription("slot-freed", "Slot?status=free", text))
    (issue,) = refusal(answer, 422)
    assert issue["expression"] == ["Subscription.criteria"]
    assert text in issue["diagnostics"]


def test_every_refusal_is_told_at_once_and_no_header_is_repeated(clinic: Clinic) -> None:
    asked = NOWHERE.subscription("nothing", header=["Bearer s3cret"]) | {}
    answer = clinic.http.post("Subscription", json=asked)
    assert len(refusal(answer, 422)) == 2
    assert "s3cret" not in answer.text


def test_what_is_no_subscription_at_all_is_400(clinic: Clinic) -> None:
    asked = NOWHERE.subscription("slot-freed")
    del asked["reason"]
    assert "reason" in said(clinic.http.post("Subscription", json=asked), 400)


def test_an_endpoint_in_the_private_network_is_refused_unless_it_is_allowed(database: Any) -> None:
    with Server(database.app_url, relay="off") as strict:
        clinic = Clinic(strict, database)
        for url in ("http://portal.example.org/x", "https://127.0.0.1/x", "https://localhost/x", "https://10.1.2.3/",
                    "https://[::1]/x", "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/"):  # fmt: skip
            answer = clinic.http.post("Subscription", json=Subscriber(url=url).subscription("slot-freed"))
            (issue,) = refusal(answer, 422)
            assert issue["expression"] == ["Subscription.channel.endpoint"], url
        assert clinic.create(NOWHERE.subscription("slot-freed"))["status"] == "requested"
        clinic.close()


# states that a client asks for


def test_off_and_on_again_by_put_and_by_patch(clinic: Clinic, subscriber: Subscriber) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    off = clinic.put(made | {"status": "off"}, If_Match=f'W/"{made["meta"]["versionId"]}"')
    assert (off.status_code, as_resource(off)["status"]) == (200, "off")
    clinic.booked()
    patch = [{"op": "replace", "path": "/status", "value": "active"}]
    headers = {"Content-Type": "application/json-patch+json"}
    again = clinic.http.patch(name(made), content=json.dumps(patch), headers=headers)
    assert as_resource(again)["status"] == "requested"
    becomes(clinic, made, "active")
    heard = clinic.booked(start="2026-06-02T10:00:00Z", end="2026-06-02T10:15:00Z")
    assert subscriber.events(1) == [{"number": 1, "focus": name(heard)}]
    assert [post.kind for post in subscriber.posts] == ["handshake", "handshake", "event-notification"]


def test_an_update_of_what_is_active_changes_no_state_unless_it_goes_elsewhere(
    clinic: Clinic, subscriber: Subscriber
) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    kept = as_resource(clinic.put(made | {"reason": "another"}))
    assert (kept["status"], kept["reason"]) == ("active", "another")
    refusal(clinic.put(made, If_Match='W/"1"'), 412)
    moved = kept | {"channel": kept["channel"] | {"endpoint": subscriber.url + "/2"}}
    assert as_resource(clinic.put(moved))["status"] == "requested"
    assert len(subscriber.posted(2, "handshake")) == 2
    becomes(clinic, made, "active")


def test_what_was_deleted_is_gone_and_hears_nothing(clinic: Clinic, subscriber: Subscriber) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    other = following(clinic, subscriber, "appointment-changed")
    deleted = clinic.http.delete(name(made))
    assert (deleted.status_code, deleted.headers["ETag"]) == (204, 'W/"3"')
    refusal(clinic.http.get(name(made)), 410)
    refusal(clinic.http.get(f"{name(made)}/$status"), 410)
    clinic.booked()
    (post,) = subscriber.posted(1, "event-notification")
    assert other["id"] in post.body.decode()
    again = clinic.put(made)
    assert (again.status_code, as_resource(again)["meta"]["versionId"]) == (201, "4")


def test_what_is_not_declared_is_405(clinic: Clinic) -> None:
    made = clinic.create(NOWHERE.subscription("slot-freed"))
    refusal(clinic.http.get(f"{name(made)}/_history"), 404)
    refusal(clinic.http.delete("Subscription?status=off"), 405)
    refusal(clinic.http.put(f"Subscription/sub-{uuid4()}", json=made), 400)


# search


def test_subscriptions_are_found_by_what_they_say(clinic: Clinic) -> None:
    first = clinic.create(NOWHERE.subscription("slot-freed") | {"contact": [{"system": "email", "value": "a@b.c"}]})
    second = clinic.create(
        Subscriber(url="https://other.example.org/x").subscription("slot-changed", payload="application/fhir+xml")
    )
    one = [name(first)]
    for query, found in (
        (f"url={quote(NOWHERE.url)}", one), ("url=https://nobody.example", []), ("contact=a@b.c", one),
        ("contact=email|a@b.c", one), ("type=rest-hook&status=requested,error&payload=application/fhir%2Bjson", one),
        (f"criteria={TOPIC}slot-f", one), (f"criteria={TOPIC.upper()}SLOT-FREED", one),
        (f"criteria:exact={TOPIC}slot-f", []), (f"criteria:exact={TOPIC}slot-freed", one), (f"_id={first['id']}", one),
        ("status=active", []),
    ):  # fmt: skip
        assert clinic.found(f"Subscription?{query}") == found, query
    # not by time: a handshake that fails is a change, too
    everything = clinic.bundle("Subscription?_sort=-_id")
    assert [name(each) for each in matches(everything)] == sorted([name(first), name(second)], reverse=True)
    posted = clinic.http.post(
        "Subscription/_search",
        content=f"url={quote(NOWHERE.url)}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert [name(each) for each in matches(as_resource(posted))] == one


def test_subscriptions_are_no_data_of_a_tenant_s_calendar(clinic: Clinic) -> None:
    clinic.create(NOWHERE.subscription("slot-freed"))
    assert clinic.bundle("?_type=Slot,Schedule,Appointment")["total"] == 0
    assert clinic.bundle("_history")["total"] == 0
    assert clinic.sql("select count(*) from outbox where tenant_id = %s", clinic.tenant) == [(0,)]


def test_the_topics_are_named_in_the_capability_statement_and_published(clinic: Clinic) -> None:
    statement = clinic.read("metadata")
    assert (
        "http://hl7.org/fhir/uv/subscriptions-backport/CapabilityStatement/backport-subscription-server-r4"
        in statement["instantiates"]
    )
    (entry,) = [each for each in statement["rest"][0]["resource"] if each["type"] == "Subscription"]
    named = [each["valueCanonical"] for each in entry["extension"]]
    assert sorted(named) == sorted(
        TOPIC + each
        for each in ("appointment-changed", "slot-freed", "slot-changed", "waitlist-offered", "schedule-conflict")
    )
    assert {each["name"] for each in entry["operation"]} == {"status", "events"}
    published = {
        extension["valueUri"]
        for topic in matches(clinic.bundle("Basic"))
        for extension in topic["extension"]
        if extension["url"].endswith("SubscriptionTopic.url")
    }
    assert published == set(named)
    assert clinic.read("Basic/slot-freed")["code"]["coding"][0]["code"] == "SubscriptionTopic"
