"""The resources that are served, by type."""

from fhir_sched.resources.appointment import APPOINTMENT
from fhir_sched.resources.schedule import SCHEDULE
from fhir_sched.resources.slot import SLOT

RESOURCES = {resource.type: resource for resource in (APPOINTMENT, SCHEDULE, SLOT)}

__all__ = ["APPOINTMENT", "RESOURCES", "SCHEDULE", "SLOT"]
