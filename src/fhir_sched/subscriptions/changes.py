"""An event of the outbox -> what it means to topics: which of them it belongs to and which resources it is about.

The outbox is written by triggers, so a change by any program is an event. Backport 1.1.0 (focus of a notification).
Knows nothing of subscribers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fhir_sched import codec
from fhir_sched.definition import Resource, Source
from fhir_sched.events.event import Event, kind
from fhir_sched.reference import is_uuid
from fhir_sched.resources import APPOINTMENT
from fhir_sched.resources.topics import TOPICS, Topic
from fhir_sched.search.among import Version

_ACTIONS: Final = {"created": "created", "deleted": "deleted"}
_TOO_LARGE: Final = 2**31
_APPOINTMENTS: Final = APPOINTMENT.sources[0]


@dataclass(frozen=True, slots=True)
class Focus:
    """The resource that an event is about: a version of a row, and what was done to it.

    `version` is None where the event does not tell: the current one is meant. `within`: the event is about the slots of
    this schedule between two times, not about the schedule itself.
    """

    resource: Resource
    source: Source
    row_id: str
    version: int | None
    action: str
    within: tuple[str, str] | None = None

    @property
    def seen(self) -> Version:
        """The version that shows what it was: for a deletion the last one before."""
        return Version(self.row_id, (self.version or 0) - (self.action == "deleted"))


@dataclass(frozen=True, slots=True)
class Change:
    """An event of a topic."""

    event: Event
    topic: Topic
    focus: Focus


def changes(events: Sequence[Event], wanted: frozenset[str]) -> Iterator[Change]:
    """What the events are to the topics with these URLs, in their order. Rows of other programs are none of ours."""
    topics = [TOPICS[url] for url in TOPICS if url in wanted]
    for event in events:
        concerned = [topic for topic in topics if event.type in topic.triggers]
        if not concerned or not event.reference:
            continue
        payload = orjson.loads(event.payload)
        for topic in concerned:
            if not topic.became or _became(payload, topic.became):
                yield from (Change(event, topic, focus) for focus in _foci(event, payload))


def _became(payload: Mapping[str, Any], status: str) -> bool:
    previous = payload.get("previous")
    before = previous.get("status", status) if isinstance(previous, dict) else status
    return bool(payload["row"].get("status") == status != before)


def _foci(event: Event, payload: Mapping[str, Any]) -> Iterator[Focus]:
    """The resources that an event is about; none for a row that only looks like one of ours."""
    known, version = kind(event.type), payload.get("version")
    if known is None or not isinstance(version, int) or not 0 < version < _TOO_LARGE:
        return
    if event.type == "slots.generated":
        made = payload.get("slots")
        ends = [str(made.get(name)) for name in ("start", "end")] if isinstance(made, dict) else [""]
        if all(codec.interval(each) for each in ends):
            yield Focus(*known, event.aggregate, version, "created", (ends[0], ends[-1]))
    elif event.type == "schedule.conflict":
        covered = payload.get("appointments")
        for row_id in covered if isinstance(covered, list) else ():
            if is_uuid(str(row_id)):
                yield Focus(APPOINTMENT, _APPOINTMENTS, str(row_id), None, "updated")
    else:
        action = _ACTIONS.get(event.type.rpartition(".")[2], "updated")
        yield Focus(*known, event.aggregate, version, action)
