"""Appointment: the appointments, and the waitlist entries as appointments of status `waitlist`. R4 12.2."""

from __future__ import annotations

from fhir_sched.actors import Participants
from fhir_sched.binding import (
    CodeColumn,
    ConceptColumn,
    Everyone,
    InstantColumn,
    Never,
    ReferenceColumn,
    References,
    SideTable,
)
from fhir_sched.concept import APPOINTMENT_TYPE_SYSTEM, APPOINTMENT_TYPES, Concept, Words
from fhir_sched.definition import DateParam, ReferenceParam, Resource, Source, TokenParam
from fhir_sched.element import Code, DateTime, Instant, Priority, Text
from fhir_sched.extensions import Extensions, Flag, JsonText, Moment, Part
from fhir_sched.hosted import HostedList
from fhir_sched.operation import CANONICAL_BASE
from fhir_sched.resources.common import common_params

STATUSES = (
    ("proposed", "proposed"), ("pending", "pending"), ("booked", "booked"), ("arrived", "arrived"),
    ("fulfilled", "fulfilled"), ("cancelled", "cancelled"), ("noshow", "noshow"),
    ("entered-in-error", "entered-in-error"), ("checked-in", "arrived"),
)  # fmt: skip
WAITLIST_STATUSES = (("waitlist", "waiting"), ("fulfilled", "fulfilled"), ("cancelled", "deleted"))
_TIMELESS = frozenset({"proposed", "cancelled"})
_WAITING = frozenset({"waiting", "deleted"})

HOLD_EXPIRES = Moment(
    "hold-expires",
    "hold_expires_at",
    "valueInstant",
    server_set=True,
    doc="Until when a pending appointment is held; from then on its time is free again. Set by the server.",
)

_APPOINTMENTS = Source(
    table="appointments",
    prefix="apt",
    kind="a",
    elements=(
        Code("status", ("status",), codes=STATUSES, fallback="entered-in-error"),
        Words("cancelationReason", ("cancel_reason", "status"), when=frozenset({"cancelled", "noshow"})),
        Concept("appointmentType", ("appointment_type",), system=APPOINTMENT_TYPE_SYSTEM, known=APPOINTMENT_TYPES),
        Words("reasonCode", ("reason",), many=True),
        Instant("start", ("start_at", "status", "end_at"), timeless=_TIMELESS),
        Instant("end", ("end_at", "status", "start_at"), timeless=_TIMELESS),
        HostedList("slot", ("slot_id",), type="Slot", prefix="slt", others="extra_slot_ids"),
        DateTime("created", ("created_at",)),
        Participants("participant", ("patient_id", "provider_id", "location_id")),
        Extensions(
            "extension",
            ("source", "allow_double_booking", "hold_expires_at"),
            parts=(
                Part(
                    "appointment-source",
                    "source",
                    "valueCode",
                    server_set=True,
                    codes=(
                        ("staff", "Somebody of the clinic, or another program that says nothing else"),
                        ("portal", "The patient"),
                        ("hl7", "Another system, such as an HL7 feed"),
                    ),
                    doc="Who made the appointment: staff, portal (the patient) or hl7 (another system). Set by the server.",
                ),
                Flag(
                    "allow-double-booking",
                    "allow_double_booking",
                    "valueBoolean",
                    default=b"f",
                    doc="Whether the appointment may overlap others of its practitioner, and take a slot that is taken",
                ),
                HOLD_EXPIRES,
            ),
        ),
    ),
    zone_from="schedule_id",
)

_WAITLIST = Source(
    table="waitlist_entries",
    prefix="wl",
    kind="w",
    elements=(
        Code("status", ("status",), codes=WAITLIST_STATUSES, fallback="cancelled"),
        Concept(
            "appointmentType", ("appointment_type",), system=APPOINTMENT_TYPE_SYSTEM, known=APPOINTMENT_TYPES, blank=""
        ),
        Priority("priority", ("priority",)),
        Instant("start", ("start_at", "status", "end_at"), timeless=_WAITING),
        Instant("end", ("end_at", "status", "start_at"), timeless=_WAITING),
        DateTime("created", ("created_at",)),
        Text("comment", ("note",)),
        Participants("participant", ("patient_id",), further="", types=("Patient",)),
        Extensions(
            "extension",
            ("criteria",),
            parts=(
                JsonText(
                    "waitlist-criteria",
                    "criteria",
                    "valueString",
                    doc="What the one who waits wishes for: a JSON object as text",
                ),
            ),
        ),
    ),
    zone_from="schedule_id",
    mark=("status", "waitlist"),
)

_ACTORS = ("Practitioner", "Device", "Patient", "HealthcareService", "PractitionerRole", "RelatedPerson", "Location")
_CONCEPT = ConceptColumn("appointment_type", "appointmentType", APPOINTMENT_TYPE_SYSTEM, APPOINTMENT_TYPES)


_PATIENT = ReferenceColumn("patient_id", "Patient")
_PRACTITIONER = ReferenceColumn("provider_id", "Practitioner")
_ROLE = ReferenceColumn("provider_id", "PractitionerRole", derived=True)
_LOCATION = ReferenceColumn("location_id", "Location")


def _actors(*columns: ReferenceColumn) -> References:
    return References(columns, entry="Appointment.actor")


APPOINTMENT = Resource(
    type="Appointment",
    doc="A booking of a healthcare event among patient(s), practitioner(s), related person(s) and/or device(s) for a specific date/time.",
    sources=(_APPOINTMENTS, _WAITLIST),
    params=(
        *common_params(2),
        ReferenceParam(
            "actor", "Appointment.participant.actor", "Any one of the individuals participating in the appointment",
            (_actors(_PATIENT, _PRACTITIONER, _ROLE, _LOCATION), _actors(_PATIENT)), targets=_ACTORS, path=("participant", "actor"),
        ),
        TokenParam("appointment-type", "Appointment.appointmentType", "The style of appointment or patient that has been booked in the slot", (_CONCEPT, _CONCEPT), path=("appointmentType",)),
        ReferenceParam("based-on", "Appointment.basedOn", "The service request this appointment is allocated to assess", (SideTable(),) * 2, targets=("ServiceRequest",), path=("basedOn",)),
        DateParam("date", "Appointment.start", "Appointment date/time.", (InstantColumn("sort_at", zone=True, nullable=True),) * 2, True),
        DateParam(
            "hold-expires", f"Appointment.extension.where(url = '{HOLD_EXPIRES.url}').value", "Until when the appointment is held",
            (InstantColumn("hold_expires_at", rare=True), Never()), definition=f"{CANONICAL_BASE}SearchParameter/Appointment-hold-expires",
        ),
        TokenParam("identifier", "Appointment.identifier", "An Identifier of the Appointment", (SideTable(),) * 2, kind="identifier", path=("identifier",)),
        ReferenceParam(
            "location", "Appointment.participant.actor.where(resolve() is Location)", "This location is listed in the participants of the appointment",
            (_actors(_LOCATION), _actors()), targets=("Location",), path=("participant", "actor"),
        ),
        TokenParam(
            "part-status", "Appointment.participant.status", "The Participation status of the subject, or other participant on the appointment",
            (Everyone("accepted", "participant"),) * 2, kind="code", path=("participant", "status"),
            system="http://hl7.org/fhir/participationstatus", codes=frozenset({"accepted", "declined", "tentative", "needs-action"}),
        ),
        ReferenceParam(
            "patient", "Appointment.participant.actor.where(resolve() is Patient)", "One of the individuals of the appointment is this patient",
            (_actors(_PATIENT), _actors(_PATIENT)), True, targets=("Patient",), path=("participant", "actor"),
        ),
        ReferenceParam(
            "practitioner", "Appointment.participant.actor.where(resolve() is Practitioner)", "One of the individuals of the appointment is this practitioner",
            (_actors(_PRACTITIONER), _actors()), targets=("Practitioner",), path=("participant", "actor"),
        ),
        TokenParam("reason-code", "Appointment.reasonCode", "Coded reason this appointment is scheduled", (SideTable("reason"), SideTable()), path=("reasonCode",)),
        ReferenceParam("reason-reference", "Appointment.reasonReference", "Reason the appointment is to take place (resource)", (SideTable(),) * 2, targets=("Condition", "Observation", "Procedure", "ImmunizationRecommendation"), path=("reasonReference",)),
        TokenParam("service-category", "Appointment.serviceCategory", "A broad categorization of the service", (SideTable(),) * 2, path=("serviceCategory",)),
        TokenParam("service-type", "Appointment.serviceType", "The specific service that is to be performed", (SideTable(),) * 2, path=("serviceType",)),
        ReferenceParam(
            "slot", "Appointment.slot", "The slots that this appointment is filling",
            (References((ReferenceColumn("slot_id", "Slot"),), entry="Appointment.slot", prefix="slt", others="extra_slot_ids"), Never()),
            targets=("Slot",), path=("slot",),
        ),
        TokenParam("specialty", "Appointment.specialty", "The specialty of a practitioner that would be required", (SideTable(),) * 2, path=("specialty",)),
        TokenParam(
            "status", "Appointment.status", "The overall status of the appointment",
            (CodeColumn("fhir_status"), CodeColumn("fhir_status")), True, kind="code", system="http://hl7.org/fhir/appointmentstatus",
            codes=frozenset(code for code, _ in STATUSES + WAITLIST_STATUSES),
        ),
        ReferenceParam("supporting-info", "Appointment.supportingInformation", "Additional information to support the appointment", (SideTable(),) * 2, path=("supportingInformation",)),
    ),
    default_sort="date",
)  # fmt: skip
