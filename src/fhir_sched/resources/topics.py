"""The topics of Subscriptions: which changes are events of each. Subscriptions R5 Backport 1.1.0.

Declared once: creation, fan-out, the CapabilityStatement and the published definitions read them. An event type is that
of the outbox, whichever program made the change. Knows nothing of subscribers.
"""

from __future__ import annotations

from dataclasses import dataclass

from fhir_sched.element import EXTENSION_BASE

TOPIC_BASE = EXTENSION_BASE.removesuffix("StructureDefinition/") + "SubscriptionTopic/"


@dataclass(frozen=True)
class Topic:
    """One topic: the resource type that filters search, and the event types of the outbox that may trigger it.

    `became` is the status of the model's row that a change must lead to, from another one.
    """

    name: str
    title: str
    doc: str
    resource: str
    triggers: frozenset[str]
    interactions: tuple[str, ...] = ("create", "update", "delete")
    became: str = ""

    @property
    def url(self) -> str:
        """The canonical URL, which `Subscription.criteria` names."""
        return TOPIC_BASE + self.name


def _changes(*aggregates: str) -> frozenset[str]:
    verbs = ("created", "updated", "rescheduled", "cancelled", "deleted")
    return frozenset(f"{aggregate}.{verb}" for aggregate in aggregates for verb in verbs)


TOPICS = {
    topic.url: topic
    for topic in (
        Topic(
            "appointment-changed",
            "Appointment changed",
            "An appointment or an entry of the waitlist was made, changed, rescheduled, cancelled or deleted.",
            "Appointment",
            _changes("appointment", "waitlist"),
        ),
        Topic(
            "slot-freed",
            "Slot freed",
            "A slot became free again: its appointment was cancelled or moved, its hold lapsed, its exception ended.",
            "Slot",
            frozenset({"slot.updated", "slot.rescheduled"}),
            ("update",),
            became="free",
        ),
        Topic(
            "slot-changed",
            "Slot changed",
            "A slot or an exception of a schedule was made, changed or deleted; slots that are generated together are "
            "one event, whose focus is their schedule.",
            "Slot",
            _changes("slot", "schedule_exception") | {"slots.generated"},
        ),
        Topic(
            "waitlist-offered",
            "Waitlist offered",
            "A slot that became free is offered to an entry of the waitlist.",
            "Appointment",
            frozenset({"waitlist.offered"}),
            ("update",),
        ),
        Topic(
            "schedule-conflict",
            "Schedule conflict",
            "An exception of a schedule covers a time that an appointment occupies.",
            "Appointment",
            frozenset({"schedule.conflict"}),
            ("update",),
        ),
    )
}
"""By canonical URL."""
