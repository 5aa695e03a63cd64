"""The events of a subscription as somebody may see them: number, time, focus, and the resource as it was then.

Laws: whoever asks (the subscriber at a send, a caller of $events) sees no more than its scopes let it read; an event
that it may not see keeps its number and shows nothing else. The resource is the version of the event, from history.
Backport 1.1.0 (notification-event). Knows nothing of Bundles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_sched import codec, rendering
from fhir_sched.definition import Resource, Source
from fhir_sched.resources import RESOURCES
from fhir_sched.search.among import Version, shown
from fhir_sched.search.parse import Parser
from fhir_sched.security import view
from fhir_sched.security.caller import Caller
from fhir_sched.security.decision import decide
from fhir_sched.security.guard import Guard
from fhir_sched.subscriptions.changes import Focus
from fhir_sched.subscriptions.database import Ask, statement, text
from fhir_sched.subscriptions.matching import fulfilling

SOURCES: Final[Mapping[str, tuple[Resource, Source]]] = {
    source.table: (resource, source) for resource in RESOURCES.values() for source in resource.sources
}
_BETWEEN: Final = (
    "select e.number, e.occurred_at, e.action, e.table_name, e.id, e.version\nfrom subscription_events e\n"
    "where e.tenant_id = $1::uuid and e.subscription_id = $2::uuid\n"
    "and e.number >= $3::bigint and e.number <= $4::bigint\norder by e.number\nlimit $5::integer"
)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who is shown events: the caller, the tenant, and the FHIR base that references begin with."""

    caller: Caller
    tenant: str
    base: str


@dataclass(frozen=True, slots=True)
class Told:
    """One event. `time` is an instant; `focus` is None where it may not be seen, `resource` JSON where it is wanted."""

    number: int
    time: str
    focus: Focus | None
    resource: bytes | None = None

    @property
    def reference(self) -> str:
        """`Appointment/apt-…` of the focus, empty without one."""
        if self.focus is None:
            return ""
        return f"{self.focus.resource.type}/{self.focus.source.prefix}-{self.focus.row_id}"


async def events(
    ask: Ask, reader: Reader, subscription_id: str, between: tuple[int, int], limit: int, *, whole: bool
) -> list[Told]:
    """Up to that many events with numbers in the closed interval, in their order; `whole`: with the resources."""
    low, high = between
    rows = await ask(statement(_BETWEEN, reader.tenant, subscription_id, str(low), str(high), str(limit)))
    foci = [_focus(*map(text, row[2:])) for row in rows]
    seen = await _visible(ask, reader, foci)
    bodies = (
        await _resources(ask, reader, [focus for focus, may in zip(foci, seen, strict=True) if may]) if whole else {}
    )
    return [
        Told(
            int(text(row[0])),
            (codec.instant(row[1]) or b"").decode(),
            focus if may else None,
            bodies.get((focus.source.table, focus.row_id, focus.version)) if may else None,
        )
        for row, focus, may in zip(rows, foci, seen, strict=True)
    ]


def _focus(action: str, table: str, row_id: str, version: str) -> Focus:
    return Focus(*SOURCES[table], row_id, int(version), action)


async def _visible(ask: Ask, reader: Reader, foci: Sequence[Focus]) -> list[bool]:
    """For each focus whether the reader's scopes let it see that; all of them where nothing limits it."""
    seen = [True] * len(foci)
    guard = Guard(reader.caller, Parser(RESOURCES, reader.base, reader.tenant))
    for resource in RESOURCES.values():
        places = [place for place, focus in enumerate(foci) if focus.resource is resource]
        if not places or reader.caller.everything:
            continue
        if not decide(reader.caller, "r", resource.type).allowed:
            # slots that are made together have their schedule as focus, whose name each of the slots tells
            results = [resource.type == "Schedule"] * len(places)
        else:
            limits = guard.limits(resource, "r")
            results = await fulfilling(ask, reader.tenant, limits, [foci[place] for place in places])
        for place, result in zip(places, results, strict=True):
            seen[place] = result
    return seen


async def _resources(ask: Ask, reader: Reader, foci: Sequence[Focus]) -> dict[tuple[str, str, int | None], bytes]:
    """The JSON of each focus that was not deleted, as the reader may see it."""
    wanted: dict[str, dict[Version, None]] = defaultdict(dict)
    for focus in foci:
        if focus.action != "deleted" and decide(reader.caller, "r", focus.resource.type).allowed:
            wanted[focus.source.table][focus.seen] = None
    found: dict[tuple[str, str, int | None], bytes] = {}
    for table, versions in wanted.items():
        resource, source = SOURCES[table]
        for row in await ask(shown(source, list(versions), reader.tenant)):
            body = rendering.to_json(resource, source, row)
            body = view.shown(reader.caller, resource.type, body, reader.base)
            found[table, text(row[0]), int(text(row[1]))] = body
    return found
