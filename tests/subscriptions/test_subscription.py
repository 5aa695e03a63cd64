"""Subscription as a resource: create, read, update, delete, search, and everything that is refused."""

from __future__ import annotations

from clinic import Clinic, as_resource
from subscriber import Subscriber, becomes


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
