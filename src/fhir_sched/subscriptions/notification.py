"""Notifications and answers of $status and $events: Bundles with a status as Parameters. Backport 1.1.0 for R4.

Numbers are strings, since R4's integers are too small; every entry of a history has request and response (bdl-3, 4).
Knows neither rows nor how anything is sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from fhir_sched.subscriptions.channel import BACKPORT
from fhir_sched.subscriptions.told import Told

_ERRORS: Final = "http://terminology.hl7.org/CodeSystem/subscription-error"
_REQUESTS: Final = {"created": ("POST", "201"), "updated": ("PUT", "200"), "deleted": ("DELETE", "204")}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a subscription stands: its id, FHIR base, topic, status, number of events, and why it is in error."""

    fhir_id: str
    base: str
    topic: str
    status: str
    events: int
    error: str = ""

    @property
    def url(self) -> str:
        """The absolute URL of the Subscription."""
        return f"{self.base}/Subscription/{self.fhir_id}"


def notification(standing: Standing, kind: str, content: str, events: Sequence[Told] = ()) -> bytes:
    """A Bundle of type history: `kind` is handshake, heartbeat, event-notification or query-event."""
    status = _status(standing, kind, content, events)
    envelope: dict[str, Any] = {
        "fullUrl": f"urn:uuid:{status['id']}",
        "resource": status,
        "request": {"method": "GET", "url": f"{standing.url}/$status"},
        "response": {"status": "200"},
    }
    entries = [envelope]
    if content != "empty":
        entries += [_entry(standing.base, told) for told in events if told.focus is not None]
    return orjson.dumps(
        {
            "resourceType": "Bundle",
            "id": str(uuid.uuid4()),
            "meta": {"profile": [f"{BACKPORT}backport-subscription-notification-r4"]},
            "type": "history",
            "timestamp": _now(),
            "entry": entries,
        }
    )


def statuses(standings: Sequence[Standing], link: str) -> bytes:
    """The searchset that $status answers."""
    found = [_status(standing, "query-status", "id-only", ()) for standing in standings]
    bundle: dict[str, Any] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(found),
        "link": [{"relation": "self", "url": link}],
    }
    if found:
        bundle["entry"] = [
            {"fullUrl": f"urn:uuid:{status['id']}", "resource": status, "search": {"mode": "match"}} for status in found
        ]
    return orjson.dumps(bundle)


def _status(standing: Standing, kind: str, content: str, events: Sequence[Told]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": "subscription", "valueReference": {"reference": standing.url}},
        # An empty notification is to tell whoever sees it as little as it can.
        *([] if content == "empty" else [{"name": "topic", "valueCanonical": standing.topic}]),
        {"name": "status", "valueCode": standing.status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(standing.events)},
        *(_event(standing.base, content, told) for told in events),
    ]
    if standing.error:
        coding = {"coding": [{"system": _ERRORS, "code": "no-response"}], "text": standing.error}
        parameters.append({"name": "error", "valueCodeableConcept": coding})
    return {
        "resourceType": "Parameters",
        "id": str(uuid.uuid4()),
        "meta": {"profile": [f"{BACKPORT}backport-subscription-status-r4"]},
        "parameter": parameters,
    }


def _event(base: str, content: str, told: Told) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"name": "event-number", "valueString": str(told.number)},
        {"name": "timestamp", "valueInstant": told.time},
    ]
    if content != "empty" and told.focus is not None:
        parts.append({"name": "focus", "valueReference": {"reference": f"{base}/{told.reference}"}})
    return {"name": "notification-event", "part": parts}


def _entry(base: str, told: Told) -> dict[str, Any]:
    method, status = _REQUESTS[told.focus.action if told.focus is not None else "updated"]
    name = told.reference
    url = name.partition("/")[0] if method == "POST" else name
    resource = {} if told.resource is None else {"resource": orjson.Fragment(told.resource)}
    return {
        "fullUrl": f"{base}/{name}",
        **resource,
        "request": {"method": method, "url": url},
        "response": {"status": status},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
