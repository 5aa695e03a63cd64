"""The operations of Subscription, as the Subscriptions R5 Backport 1.1.0 defines them. Declarations only."""

from __future__ import annotations

from typing import Final

from fhir_sched.operation import Operation, Parameter

_BACKPORT: Final = "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-"

STATUS = Operation(
    "status",
    "Subscription",
    "Status of Subscriptions",
    "How Subscriptions stand: status, number of events, and why one is in error",
    inputs=(
        Parameter("id", "id", "At the type level: of these Subscriptions, of all without it", max="*"),
        Parameter("status", "code", "At the type level: of those with one of these statuses", max="*"),
    ),
    outputs=(Parameter("return", "Bundle", "A searchset of one status, as Parameters, each", min=1),),
    levels=("type", "instance"),
    methods=("GET", "POST"),
    affects_state=False,
    needs=(("Subscription", "r"),),
    defined=_BACKPORT + "status",
)

EVENTS = Operation(
    "events",
    "Subscription",
    "Events of a Subscription",
    "What a Subscription was told, or should have been, as notifications tell it: up to 1,000 events from the first "
    "number on, resources as they were at each event",
    inputs=(
        Parameter("eventsSinceNumber", "string", "The number of the first event, 1 without it"),
        Parameter("eventsUntilNumber", "string", "The number of the last event, the newest without it"),
        Parameter("content", "code", "empty, id-only or full-resource; what the Subscription has without it"),
    ),
    outputs=(Parameter("return", "Bundle", "A history whose first entry is the status with the events", min=1),),
    levels=("instance",),
    methods=("GET", "POST"),
    affects_state=False,
    needs=(("Subscription", "r"),),
    defined=_BACKPORT + "events",
)
