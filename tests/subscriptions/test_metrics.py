"""What /metrics tells of Subscriptions: how they stand, what was sent, what waits; of nobody, and nowhere to."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from clinic import Clinic
from db import Database
from server import Server
from subscriber import WAIT_S, Subscriber, becomes, following

REST_HOOK = 'channel="rest-hook"'


def _figures(server: Server) -> dict[str, float]:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def _until(server: Server, holds: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    end = time.monotonic() + WAIT_S
    while not holds(found := _figures(server)):
        assert time.monotonic() < end, {name: value for name, value in found.items() if "subscription" in name}
        time.sleep(0.05)
    return found


def _sent(name: str, kind: str) -> str:
    return f'fhir_sched_subscription_{name}_total{{{REST_HOOK},kind="{kind}"}}'


def _standing(status: str) -> str:
    return f'fhir_sched_subscriptions{{{REST_HOOK},status="{status}"}}'


def test_what_was_sent_what_failed_and_what_waits_is_counted(
    clinic: Clinic, server: Server, database: Database, subscriber: Subscriber
) -> None:
    made = following(clinic, subscriber, "appointment-changed")
    clinic.booked()
    subscriber.events(1)
    waiting, oldest = (f"fhir_sched_subscription_{each}{{{REST_HOOK}}}" for each in ("waiting", "oldest_seconds"))
    taken, events = _sent("notifications", "event-notification"), f"fhir_sched_subscription_events_total{{{REST_HOOK}}}"
    found = _until(server, lambda found: found.get(taken) == 1 and found.get(_standing("active")) == 1)
    assert found[_sent("notifications", "handshake")] == 1
    assert (found[events], found[_standing("requested")], found[_standing("error")]) == (1, 0, 0)
    found = _until(server, lambda found: found[waiting] == 0)
    assert found[oldest] == 0

    subscriber.default = 500
    clinic.booked(start="2026-06-02T10:00:00Z", end="2026-06-02T10:15:00Z")
    failed = _sent("failures", "event-notification")
    found = _until(server, lambda found: found[waiting] == 1 and found.get(failed, 0) > 0 and found[oldest] > 0)
    with Server(database.app_url, relay="off") as apart:
        told = _until(apart, lambda found: found.get(waiting) == 1)
        assert told[oldest] > found[oldest]
        assert told[_standing("active")] == 1
    clinic.sql("update subscriptions set failures = 4 where tenant_id = %s", clinic.tenant)
    becomes(clinic, made, "error")
    found = _until(server, lambda found: found[_standing("error")] == 1)
    assert (found[waiting], found[oldest], found[events], found[_standing("active")]) == (0, 0, 1, 0)

    text = httpx.get(f"{server.url}/metrics").text
    for secret in (str(clinic.tenant), made["id"], subscriber.url):
        assert secret not in text
