"""An event: one row of the outbox with the resource as it was when it was written.

Law: an event tells of a FHIR resource only where one of our own triggers wrote the row; a row of another program is
passed on as it stands. Knows no sink and no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_sched.definition import Resource, Source
from fhir_sched.resources import RESOURCES

_TABLES: Final = {
    "appointment": "appointments",
    "schedule": "schedules",
    "schedule_exception": "schedule_exceptions",
    "slot": "slots",
    "slots": "schedules",
    "waitlist": "waitlist_entries",
}
"""The table of the row that an event carries, by the first word of its type; `slots.generated` is of a schedule."""

KINDS: Final[dict[str, tuple[Resource, Source]]] = {
    word: next(
        (resource, source) for resource in RESOURCES.values() for source in resource.sources if source.table == table
    )
    for word, table in _TABLES.items()
}


@dataclass(frozen=True, slots=True)
class Event:
    """`id` is the outbox row's, `time` its `created_at` (UTC, a FHIR instant), `aggregate` the row that it is about.

    `resource` is JSON, the resource as it was; None after a delete and for rows of other programs. `payload` is the
    row's own, JSON as well; empty where nobody asked for it. `reference` is `Appointment/apt-…`, empty for others'
    rows.
    """

    id: str
    tenant: str
    type: str
    time: str
    aggregate: str
    reference: str = ""
    resource: bytes | None = None
    payload: bytes = b""

    @property
    def subject(self) -> str:
        """The reference, or a URN of the row where there is none."""
        return self.reference or f"urn:uuid:{self.aggregate}"

    @property
    def deleted(self) -> bool:
        """Whether it tells of a deletion."""
        return bool(self.reference) and self.type.endswith(".deleted")


def kind(event_type: str) -> tuple[Resource, Source] | None:
    """What an event of this type is about; None for types that are not ours."""
    return KINDS.get(event_type.partition(".")[0])
