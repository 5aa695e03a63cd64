"""Subscription: who is told of which topic, and how. R4 2.46, Subscriptions R5 Backport 1.1.0.

The channel with its endpoint, headers and payload has no column: it is kept as it was written and searched for in the
side table. State, topic and end have columns, since delivery works by them.
"""

from __future__ import annotations

from fhir_sched.binding import CodeColumn, ReferenceColumn, References, SideTable
from fhir_sched.definition import ReferenceParam, Resource, Source, StringParam, TokenParam, UriParam
from fhir_sched.element import Code, Instant, Text
from fhir_sched.resources.common import common_params
from fhir_sched.resources.topics import TOPICS

STATUSES = ("requested", "active", "error", "off")

_SUBSCRIPTIONS = Source(
    table="subscriptions",
    prefix="sub",
    kind="b",
    elements=(
        Code("status", ("status",), codes=tuple((code, code) for code in STATUSES), fallback="error"),
        Instant("end", ("end_at", "status", "end_at"), timeless=frozenset(STATUSES)),
        Text("criteria", ("criteria",)),
        Text("error", ("error",)),
    ),
    identified=False,
)

SUBSCRIPTION = Resource(
    type="Subscription",
    doc="A request to be told of the events of a topic, by a POST to an endpoint of the subscriber's.",
    sources=(_SUBSCRIPTIONS,),
    params=(
        *common_params(1),
        TokenParam("contact", "Subscription.contact", "Contact details for the subscription", (SideTable(),), kind="contact", path=("contact",)),
        StringParam("criteria", "Subscription.criteria", "The topic, or how its URL begins", (CodeColumn("criteria"),), codes=frozenset(TOPICS)),
        TokenParam("payload", "Subscription.channel.payload", "The mime-type of the notification payload", (SideTable(),), kind="code", path=("channel", "payload")),
        TokenParam(
            "status", "Subscription.status", "The current state of the subscription", (CodeColumn("status"),), True,
            kind="code", system="http://hl7.org/fhir/subscription-status", codes=frozenset(STATUSES),
        ),
        TokenParam(
            "type", "Subscription.channel.type", "The type of channel for the sent notifications", (SideTable(),),
            kind="code", system="http://hl7.org/fhir/subscription-channel-type", path=("channel", "type"),
        ),
        UriParam("url", "Subscription.channel.endpoint", "The uri that will receive the notifications", (SideTable(),), path=("channel", "endpoint")),
    ),
    default_sort="_id",
    interactions=("read", "update", "patch", "delete", "create", "search-type", "search-form", "conditional-read", "conditional-create"),
    own=ReferenceParam(
        "patient", "Subscription", "The patient who subscribed", (References((ReferenceColumn("patient_id", "Patient"),)),),
        targets=("Patient",),
    ),
)  # fmt: skip
