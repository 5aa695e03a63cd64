"""The resources that are served, by type.

`RESOURCES` hold the tenants' data: whatever goes over several types at once (system search and history, compartments,
chains, includes) goes over these. `SERVED` are all that have a URL: those, the subscriptions to them, the audit log.
"""

from fhir_sched.resources.appointment import APPOINTMENT
from fhir_sched.resources.audit_event import AUDIT_EVENT
from fhir_sched.resources.schedule import SCHEDULE
from fhir_sched.resources.slot import SLOT
from fhir_sched.resources.subscription import SUBSCRIPTION

RESOURCES = {resource.type: resource for resource in (APPOINTMENT, SCHEDULE, SLOT)}
SERVED = {**RESOURCES, SUBSCRIPTION.type: SUBSCRIPTION, AUDIT_EVENT.type: AUDIT_EVENT}

__all__ = ["APPOINTMENT", "AUDIT_EVENT", "RESOURCES", "SCHEDULE", "SERVED", "SLOT", "SUBSCRIPTION"]
