"""Events on their way: from the outbox to every sink at once, and later from the deliveries to one sink.

Laws: nothing is marked before it has arrived; each step is one transaction of one tenant that holds its rows, so a
relay that is killed has marked nothing, and what it sent is sent again under the same id. For the same reason its
commits need not wait for the disk, which bookings wait for: a mark that a crash of PostgreSQL undoes is a repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fhir_sched.events import cloudevent, deliveries, outbox
from fhir_sched.events.channel import Channel
from fhir_sched.events.deliveries import Delivery, Miss
from fhir_sched.events.event import Event
from fhir_sched.events.session import Connection, under
from fhir_sched.events.sink import Failure, Message, Refused

log = logging.getLogger("fhir_sched.events")

# A sink that takes longer for new events is served from the deliveries, where it holds no other sink up.
_PATIENCE_S: Final = 3.0
_OWN_PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Sending:
    """How events are written and when they are given up. `root` stands before `/fhir/<tenant>` in an event's source."""

    root: str = ""
    whole: bool = True
    park_after: int = 8

    def message(self, event: Event) -> Message:
        """The event as sinks take it."""
        body = cloudevent.structured(event, self.root, whole=self.whole)
        return Message(event.id, event.tenant, event.type, event.aggregate, body)

    async def relay(self, connection: Connection, tenant: str, channels: Sequence[Channel], limit: int) -> int:
        """Take new events of a tenant, offer them to every sink, mark them; how many there were."""
        async with under(connection, tenant, hurried=True):
            events = await outbox.take(connection, tenant, limit)
            if not events:
                return 0
            held = await deliveries.held(
                connection, tenant, [each.name for each in channels], list({event.aggregate for event in events})
            )
            found = await asyncio.gather(*(self._offered(channel, events, held) for channel in channels))
            misses = [miss for each in found for miss in each]
            await deliveries.add(connection, tenant, misses, self.park_after)
            missed = {miss.event.id for miss in misses}
            arrived = [event.id for event in events if event.id not in missed]
            await outbox.mark(connection, tenant, arrived, "published")
            await outbox.mark(connection, tenant, list(missed), "queued")
        for channel in channels:
            if any(miss.sink == channel.name for miss in misses):
                channel.more.set()
        return len(events)

    async def _offered(self, channel: Channel, events: Sequence[Event], held: set[tuple[str, str]]) -> list[Miss]:
        """What the sink has not taken; what must wait for an earlier event of its row is not offered."""
        if channel.behind or channel.rest_s:
            return [Miss(event, channel.name, tried=False) for event in events]
        waiting = [event for event in events if (channel.name, event.aggregate) in held]
        offered = [event for event in events if (channel.name, event.aggregate) not in held]
        failures = await channel.offer([self.message(event) for event in offered], _PATIENCE_S)
        misses = [_miss(event, channel.name, failures[event.id]) for event in offered if event.id in failures]
        channel.behind = any(not miss.refused for miss in misses)
        return misses + [Miss(event, channel.name, tried=False) for event in waiting]

    async def catch_up(self, connection: Connection, tenant: str, channel: Channel) -> int:
        """Send what is due to one sink; how many deliveries were looked at."""
        async with under(connection, tenant, hurried=True):
            due = await deliveries.take(connection, tenant, channel.name, channel.batch)
            if not due:
                return 0
            events = {event.id: event for event in await outbox.again(connection, tenant, [each.event for each in due])}
            # an event that somebody removed has nothing left to send
            arrived = [each.event for each in due if each.event not in events]
            messages = [self.message(events[each.event]) for each in due if each.event in events]
            failures = await channel.offer(messages, _OWN_PATIENCE_S)
            arrived += [message.id for message in messages if message.id not in failures]
            await deliveries.done(connection, tenant, channel.name, arrived)
            for delivery in due:
                failure = failures.get(delivery.event)
                if failure is not None:
                    await self._missed(
                        connection, tenant, delivery, _miss(events[delivery.event], channel.name, failure)
                    )
        return len(due)

    async def _missed(self, connection: Connection, tenant: str, delivery: Delivery, miss: Miss) -> None:
        if await deliveries.missed(connection, tenant, delivery, miss, self.park_after):
            log.error(
                "an event is parked: see `fhir-sched relay parked`",
                extra={"fields": {"event": miss.event.id, "sink": miss.sink, "problem": miss.problem}},
            )


def _miss(event: Event, sink: str, failure: Failure | None) -> Miss:
    if failure is None:
        return Miss(event, sink, tried=False)
    return Miss(event, sink, str(failure), refused=isinstance(failure, Refused))
