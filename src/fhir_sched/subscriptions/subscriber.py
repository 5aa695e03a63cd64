"""Whom a Subscription works for: the caller who made it, with the scopes that were granted, kept with the row.

Laws: what a subscriber is told is judged by these scopes at each event and again at each send; who made a subscription
on a server without tokens is told nothing by one that asks for them. SMART App Launch 2.2. Knows no SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from fhir_sched import reference
from fhir_sched.resources import RESOURCES
from fhir_sched.resources.topics import Topic
from fhir_sched.search.parse import Parser
from fhir_sched.search.query import Condition, Query, Sort
from fhir_sched.security.caller import Caller
from fhir_sched.security.decision import decide
from fhir_sched.security.guard import Guard
from fhir_sched.security.scopes import Scope
from fhir_sched.subscriptions import filters

NEEDED = "rs"
"""The letters that a subscriber needs on the type of its topic: it reads what a search by its filters finds."""


def to_column(caller: Caller) -> bytes:
    """The caller as JSON."""
    return orjson.dumps(
        {
            "subject": caller.subject,
            "client": caller.client,
            "patient": caller.patient,
            "user": caller.user,
            "everything": caller.everything,
            "scopes": [[each.context, each.type, each.letters, each.query] for each in caller.scopes],
        }
    )


def of_column(column: bytes | str, *, tokens: bool) -> Caller:
    """The caller again; `tokens`: this server asks for them, so nobody may see everything without."""
    kept: dict[str, Any] = orjson.loads(column)
    scopes = tuple(
        Scope(context, kind, letters, tuple((name, value) for name, value in query))
        for context, kind, letters, query in kept["scopes"]
    )
    everything = kept["everything"] is True and not tokens
    return Caller(
        subject=kept["subject"],
        scopes=scopes,
        patient=kept["patient"],
        user=kept["user"],
        client=kept["client"],
        everything=everything,
    )


def patient_uuid(caller: Caller, base: str) -> str | None:
    """The UUID of the patient to whom the caller's subscriptions belong; None for one who is no patient's."""
    named = caller.patient or (caller.user if caller.user.startswith("Patient/") else "")
    found = reference.target(named, base)
    return None if found is None else found.uuid


def may_follow(caller: Caller, topic: Topic) -> bool:
    """Whether the caller's scopes let it hear of the topic's resources at all."""
    return all(decide(caller, letter, topic.resource).allowed for letter in NEEDED)


@dataclass(frozen=True, slots=True)
class Listening:
    """What a subscriber listens to. The texts tell equal ones apart from others: two with the same hear the same."""

    topic: Topic
    filters: tuple[str, ...]
    caller: Caller
    base: str
    tenant: str

    def conditions(self) -> tuple[Condition, ...] | None:
        """What must hold for a resource so that the subscriber is told of it; None where it is told nothing."""
        if not may_follow(self.caller, self.topic):
            return None
        resource = RESOURCES[self.topic.resource]
        parser = Parser(RESOURCES, self.base, self.tenant)
        wanted = tuple(each for text in self.filters for each in filters.conditions(self.topic, text, parser))
        guard = Guard(self.caller, parser)
        order = (Sort(resource.param["_id"], descending=False),)
        limited = guard.query(Query(resource, wanted, order, 1))
        return (*limited.conditions, *guard.limits(resource, "r"))
