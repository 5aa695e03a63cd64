"""What a valid R4 resource must also fulfil here: times in order, a code that fits. Refusals are 422.

Availability is not checked here: the database decides races by constraints and locks. Knows nothing of SQL.
"""

from __future__ import annotations

from typing import Any

from fhir_sched import codec
from fhir_sched.element import EXTENSION_BASE
from fhir_sched.outcome import Issue, Kind
from fhir_sched.r4.moments import is_after

_ENDS = ("start", "end")
OVERRIDE_REASON = EXTENSION_BASE + "override-reason"


def issues(document: dict[str, Any]) -> list[Issue]:
    """Every rule that a valid resource breaks."""
    kind = document["resourceType"]
    if kind not in ("Slot", "Appointment"):
        return []
    found = _reasons(document) if kind == "Appointment" else []
    covered = {name: codec.interval(document[name]) for name in _ENDS if name in document}
    found += [
        Issue(Kind.BUSINESS_RULE, f"{name} {document[name]} is outside of the years 1 to 9999 in UTC", f"{kind}.{name}")
        for name, each in covered.items()
        if each is None
    ]
    if len(covered) == len(_ENDS) and None not in covered.values() and not is_after(document["end"], document["start"]):
        said = f"start {document['start']} must be before end {document['end']}"
        found.append(Issue(Kind.BUSINESS_RULE, said, f"{kind}.start"))
    return found


def _reasons(document: dict[str, Any]) -> list[Issue]:
    """A reason to override rules says something."""
    given = [extension for extension in document.get("extension", ()) if extension.get("url") == OVERRIDE_REASON]
    if all(isinstance(each.get("valueString"), str) and each["valueString"].strip() for each in given):
        return []
    return [Issue(Kind.BUSINESS_RULE, "override-reason carries the reason in valueString", "Appointment.extension")]
