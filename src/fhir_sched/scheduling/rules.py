"""What a valid R4 resource must also fulfil here: times in order, a code that fits. Refusals are 422.

Availability is not checked here: the database decides races by constraints and locks. Knows nothing of SQL.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fhir_sched import codec
from fhir_sched.element import EXTENSION_BASE
from fhir_sched.outcome import Issue, Kind

OVERRIDE_REASON = EXTENSION_BASE + "override-reason"


def issues(document: dict[str, Any]) -> list[Issue]:
    """Every rule that a valid resource breaks."""
    kind = document["resourceType"]
    if kind not in ("Slot", "Appointment"):
        return []
    found = _reasons(document) if kind == "Appointment" else []
    start, end = (document.get(name) for name in ("start", "end"))
    if start is not None and end is not None and _moment(start) >= _moment(end):
        found.append(Issue(Kind.BUSINESS_RULE, f"start {start} must be before end {end}", f"{kind}.start"))
    return found


def _reasons(document: dict[str, Any]) -> list[Issue]:
    """A reason to override rules says something."""
    given = [extension for extension in document.get("extension", ()) if extension.get("url") == OVERRIDE_REASON]
    if all(isinstance(each.get("valueString"), str) and each["valueString"].strip() for each in given):
        return []
    return [Issue(Kind.BUSINESS_RULE, "override-reason carries the reason in valueString", "Appointment.extension")]


def _moment(text: str) -> datetime:
    """The instant; a leap second, which Python can't hold, counts as the second before."""
    found = codec.interval(text.replace(":60", ":59"))
    return datetime.max.replace(tzinfo=UTC) if found is None else found.low
