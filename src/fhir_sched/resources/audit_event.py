"""AuditEvent: the audit log, read-only. R4 6.4, IHE BALP; the rows are written by the server alone."""

from __future__ import annotations

from fhir_sched.audit import OUTCOMES, Agents, Entities, Interaction, Kind, Origin, Outcome, Word
from fhir_sched.binding import CodeColumn, IdColumn, InstantColumn, ReferenceText
from fhir_sched.definition import DateParam, ReferenceParam, Resource, Source, TokenParam
from fhir_sched.element import Instant

_EVENTS = Source(
    table="audit_events",
    prefix="aud",
    kind="l",
    elements=(
        Kind("type", ()),
        Interaction("subtype", ("interaction",)),
        Word("action", ("action",)),
        Instant("recorded", ("recorded_at",), required=True),
        Word("outcome", ("outcome",)),
        Outcome("outcomeDesc", ("status",)),
        Agents("agent", ("action", "client", "subject", "issuer", "agent", "address", "server")),
        Origin("source", ("server",)),
        Entities("entity", ("interaction", "type", "entity", "entity_version", "query", "patient", "request_id")),
    ),
    selects={"version": "1", "updated_at": "a.recorded_at", "fhir": "null::jsonb"},
    identified=False,
)

AUDIT_EVENT = Resource(
    type="AuditEvent",
    doc="Who asked for what and what became of it: one event for each interaction, and for each patient it concerned.",
    sources=(_EVENTS,),
    params=(
        TokenParam(
            "_id", "Resource.id", "Logical id of this artifact", (IdColumn(),), True,
            "http://hl7.org/fhir/SearchParameter/Resource-id", kind="id",
        ),
        DateParam(
            "_lastUpdated", "Resource.meta.lastUpdated", "When the event was recorded", (InstantColumn("recorded_at"),), True,
            "http://hl7.org/fhir/SearchParameter/Resource-lastUpdated",
        ),
        ReferenceParam(
            "agent", "AuditEvent.agent.who", "The user (:identifier finds the client_id and the sub of a token)",
            (ReferenceText("agent", identifiers=("client", "subject")),),
            targets=("Practitioner", "Organization", "Device", "Patient", "PractitionerRole", "RelatedPerson"),
        ),
        DateParam("date", "AuditEvent.recorded", "Time when the event was recorded", (InstantColumn("recorded_at"),), True),
        ReferenceParam(
            "entity", "AuditEvent.entity.what", "The resource that was asked for, or the patient it is about",
            (ReferenceText("entity", also="patient"),),
        ),
        TokenParam(
            "outcome", "AuditEvent.outcome", "Whether the event succeeded or failed", (CodeColumn("outcome"),),
            kind="code", system="http://terminology.hl7.org/CodeSystem/audit-event-outcome", codes=OUTCOMES,
        ),
        ReferenceParam(
            "patient", "AuditEvent.agent.who.where(resolve() is Patient) | AuditEvent.entity.what.where(resolve() is Patient)",
            "The patient whose data were asked for, or who asked", (ReferenceText("patient", also="agent"),), targets=("Patient",),
        ),
    ),
    default_sort="-date",
    interactions=("read", "search-type", "search-form"),
)  # fmt: skip
