"""Slot: the slots, and the schedule exceptions as blocked ones. R4 12.3."""

from __future__ import annotations

from fhir_sched.binding import CodeColumn, ConceptColumn, Fixed, InstantColumn, ReferenceColumn, References, SideTable
from fhir_sched.concept import APPOINTMENT_TYPE_SYSTEM, APPOINTMENT_TYPES, Concept
from fhir_sched.definition import DateParam, ReferenceParam, Resource, Source, TokenParam
from fhir_sched.element import Code, Constant, Instant, Text
from fhir_sched.extensions import Count, Extensions, Mentions, Part
from fhir_sched.hosted import Hosted
from fhir_sched.resources.common import common_params

STATUSES = (
    ("free", "free"), ("busy", "busy"), ("busy-unavailable", "blocked"), ("entered-in-error", "entered-in-error"),
    ("busy-tentative", "busy"),
)  # fmt: skip

CAPACITY = Count(
    "slot-capacity",
    "capacity",
    "valueInteger",
    omit=b"1",
    default=b"1",
    doc="How many appointments the slot has room for, 1 without it; it is busy when it is full",
)

_SLOTS = Source(
    table="slots",
    prefix="slt",
    kind="s",
    elements=(
        Hosted("schedule", ("schedule_id",), type="Schedule", prefix="sch"),
        Code("status", ("status",), codes=STATUSES, fallback="busy-unavailable"),
        Instant("start", ("start_at",), required=True),
        Instant("end", ("end_at",), required=True),
        Concept("appointmentType", ("appointment_type",), system=APPOINTMENT_TYPE_SYSTEM, known=APPOINTMENT_TYPES),
        Extensions("extension", ("capacity",), parts=(CAPACITY,)),
    ),
    zone_from="schedule_id",
)

EXCEPTION_TYPE = Part(
    "schedule-exception-type",
    "type",
    "valueCode",
    default=b"holiday",
    doc="Why the time is blocked; it makes the Slot an exception of the schedule",
)

CONFLICT = Mentions(
    "schedule-conflict",
    "conflicts",
    "valueReference",
    server_set=True,
    doc="An appointment that was booked under the exception when that was written or moved, and left as it was",
    names="Appointment",
    prefix="apt",
)

_EXCEPTIONS = Source(
    table="schedule_exceptions",
    prefix="exc",
    kind="e",
    elements=(
        Hosted("schedule", ("schedule_id",), type="Schedule", prefix="sch"),
        Constant("status", (), value="busy-unavailable"),
        Instant("start", ("start_at",), required=True),
        Instant("end", ("end_at",), required=True),
        Text("comment", ("reason",)),
        Extensions("extension", ("type", "conflicts"), parts=(EXCEPTION_TYPE, CONFLICT)),
    ),
    selects={"conflicts": "array_to_json(a.conflicts)"},
    zone_from="schedule_id",
    mark=("extension", EXCEPTION_TYPE.url),
)

_SCHEDULE = References((ReferenceColumn("schedule_id", "Schedule"),), prefix="sch")

SLOT = Resource(
    type="Slot",
    doc="A slot of time on a schedule that may be available for booking appointments.",
    sources=(_SLOTS, _EXCEPTIONS),
    params=(
        *common_params(2),
        TokenParam(
            "appointment-type", "Slot.appointmentType", "The style of appointment or patient that may be booked in the slot",
            (ConceptColumn("appointment_type", "appointmentType", APPOINTMENT_TYPE_SYSTEM, APPOINTMENT_TYPES), SideTable()),
            path=("appointmentType",),
        ),
        TokenParam("identifier", "Slot.identifier", "A Slot Identifier", (SideTable(),) * 2, kind="identifier", path=("identifier",)),
        ReferenceParam(
            "schedule", "Slot.schedule", "The Schedule Resource that we are seeking a slot within", (_SCHEDULE,) * 2, True,
            targets=("Schedule",), path=("schedule",),
        ),
        TokenParam("service-category", "Slot.serviceCategory", "A broad categorization of the service", (SideTable(),) * 2, path=("serviceCategory",)),
        TokenParam("service-type", "Slot.serviceType", "The type of appointments that can be booked into the slot", (SideTable(),) * 2, path=("serviceType",)),
        TokenParam("specialty", "Slot.specialty", "The specialty of a practitioner that would be required", (SideTable(),) * 2, path=("specialty",)),
        DateParam("start", "Slot.start", "Appointment date/time", (InstantColumn("start_at", zone=True),) * 2, True),
        TokenParam(
            "status", "Slot.status", "The free/busy status of the appointment",
            (CodeColumn("fhir_status"), Fixed("busy-unavailable")), True,
            kind="code", system="http://hl7.org/fhir/slotstatus", codes=frozenset(code for code, _ in STATUSES),
        ),
    ),
    default_sort="start",
)  # fmt: skip
