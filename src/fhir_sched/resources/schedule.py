"""Schedule: a table of elements and search parameters. R4 12.4."""

from __future__ import annotations

from fhir_sched.actors import Actors
from fhir_sched.availability import Availability
from fhir_sched.binding import BooleanColumn, PeriodColumns, ReferenceColumn, References, SideTable
from fhir_sched.concept import ServiceTypes
from fhir_sched.definition import DateParam, ReferenceParam, Resource, Source, TokenParam
from fhir_sched.element import Boolean, Horizon
from fhir_sched.extensions import Extensions, Zone
from fhir_sched.resources.common import common_params

_SCHEDULES = Source(
    table="schedules",
    prefix="sch",
    kind="c",
    elements=(
        Boolean("active", ("is_active",)),
        ServiceTypes("serviceType", ("service_types",)),
        Actors("actor", ("actor_id", "actor_type")),
        Horizon("planningHorizon", (), low="horizon_start", high="horizon_end", flag="horizon"),
        Extensions(
            "extension",
            ("timezone", "availability_pattern"),
            parts=(
                Zone(
                    "schedule-timezone",
                    "timezone",
                    "valueCode",
                    omit=b"UTC",
                    default=b"UTC",
                    doc="The IANA time zone of the schedule's clock, UTC without it",
                ),
                Availability(
                    "schedule-availability",
                    "availability_pattern",
                    "",
                    doc="One weekly rule by which slots are made; several rules add up",
                ),
            ),
        ),
    ),
    selects={"service_types": "array_to_json(a.service_types)"},
    zone_from="self",
)

_ACTORS = ("Practitioner", "Device", "Patient", "HealthcareService", "PractitionerRole", "RelatedPerson", "Location")

SCHEDULE = Resource(
    type="Schedule",
    doc="A container for slots of time that may be available for booking appointments.",
    sources=(_SCHEDULES,),
    params=(
        *common_params(1),
        TokenParam(
            "active", "Schedule.active", "Is the schedule in active use", (BooleanColumn("is_active"),), True,
            kind="boolean", codes=frozenset({"true", "false"}),
        ),
        ReferenceParam(
            "actor", "Schedule.actor", "The individual (HealthcareService, Practitioner, Location, ...) to find a Schedule for",
            (
                References(
                    (
                        ReferenceColumn("actor_id", "Practitioner", "provider"),
                        ReferenceColumn("actor_id", "PractitionerRole", "provider"),
                        ReferenceColumn("actor_id", "Location", "location"),
                        ReferenceColumn("actor_id", "HealthcareService", "location"),
                        ReferenceColumn("actor_id", "Device", "device"),
                    ),
                    entry="Schedule.actor", type_column="actor_type", check="actor",
                ),
            ),
            targets=_ACTORS, path=("actor",),
        ),
        DateParam(
            "date", "Schedule.planningHorizon", "Search for Schedule resources that have a period that contains this date specified",
            (PeriodColumns("horizon_start", "horizon_end", "horizon"),),
        ),
        TokenParam("identifier", "Schedule.identifier", "A Schedule Identifier", (SideTable(),), kind="identifier", path=("identifier",)),
        TokenParam("service-category", "Schedule.serviceCategory", "High-level category", (SideTable(),), path=("serviceCategory",)),
        TokenParam("service-type", "Schedule.serviceType", "The type of appointments that can be booked into associated slot(s)", (SideTable(),), path=("serviceType",)),
        TokenParam("specialty", "Schedule.specialty", "Type of specialty needed", (SideTable(),), path=("specialty",)),
    ),
    default_sort="_id",
)  # fmt: skip
