"""What a valid R4 resource must also fulfil here: times in order, a code that fits. Refusals are 422.

Availability is not checked here: the database decides races by constraints and locks. Knows nothing of SQL.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fhir_sched import codec
from fhir_sched.outcome import Issue, Kind


def issues(document: dict[str, Any]) -> list[Issue]:
    """Every rule that a valid resource breaks."""
    kind = document["resourceType"]
    if kind not in ("Slot", "Appointment"):
        return []
    start, end = (document.get(name) for name in ("start", "end"))
    if start is None or end is None or _moment(start) < _moment(end):
        return []
    return [Issue(Kind.BUSINESS_RULE, f"start {start} must be before end {end}", f"{kind}.start")]


def _moment(text: str) -> datetime:
    """The instant; a leap second, which Python can't hold, counts as the second before."""
    found = codec.interval(text.replace(":60", ":59"))
    return datetime.max.replace(tzinfo=UTC) if found is None else found.low
