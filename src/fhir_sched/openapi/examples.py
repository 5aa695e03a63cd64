"""Bodies that work as they are, for the document's readers and for tools that try them."""

from __future__ import annotations

from typing import Any, Final

_PATIENT: Final = {"actor": {"reference": "Patient/6a1f4b0e-6a3c-4b9b-8f5e-0d7c3b1a2e4f"}, "status": "accepted"}
_EXAMPLES: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "Schedule": {
        "practitioner": {
            "resourceType": "Schedule",
            "actor": [{"reference": "Practitioner/2b9d4b0e-6a3c-4b9b-8f5e-0d7c3b1a2e4f"}],
            "serviceType": [{"coding": [{"code": "general-practice"}]}],
        }
    },
    "Slot": {
        "free": {
            "resourceType": "Slot",
            "schedule": {"reference": "Schedule/sch-3c9d4b0e-6a3c-4b9b-8f5e-0d7c3b1a2e4f"},
            "status": "free",
            "start": "2026-06-02T09:00:00Z",
            "end": "2026-06-02T09:30:00Z",
        }
    },
    "Subscription": {
        "slots": {
            "resourceType": "Subscription",
            "status": "requested",
            "reason": "Tell the portal of slots that become free",
            "criteria": "http://fhir-sched.org/fhir/SubscriptionTopic/slot-freed",
            "channel": {
                "type": "rest-hook",
                "endpoint": "https://portal.example.org/notify",
                "payload": "application/fhir+json",
                "_payload": {
                    "extension": [
                        {
                            "url": "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
                            "backport-payload-content",
                            "valueCode": "id-only",
                        }
                    ]
                },
            },
        }
    },
    "Appointment": {
        "proposed": {"resourceType": "Appointment", "status": "proposed", "participant": [_PATIENT]},
        "booked": {
            "resourceType": "Appointment",
            "status": "booked",
            "slot": [{"reference": "Slot/slt-4d9d4b0e-6a3c-4b9b-8f5e-0d7c3b1a2e4f"}],
            "start": "2026-06-02T09:00:00Z",
            "end": "2026-06-02T09:30:00Z",
            "participant": [_PATIENT],
        },
    },
}


def patch() -> dict[str, dict[str, Any]]:
    """A JSON Patch as an example, by name."""
    return {"comment": {"value": [{"op": "add", "path": "/comment", "value": "Bring the referral"}]}}


def bundles() -> dict[str, dict[str, Any]]:
    """Bundles that do what they say, by name."""
    entry = {"request": {"method": "GET", "url": "Slot?status=free&_count=1"}}
    return {"batch": {"value": {"resourceType": "Bundle", "type": "batch", "entry": [entry]}}}


def of(kind: str) -> dict[str, dict[str, Any]]:
    """The examples of a resource type by name, as OpenAPI lists them."""
    return {name: {"value": value} for name, value in _EXAMPLES[kind].items()}
