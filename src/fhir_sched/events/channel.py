"""A sink with what the relay knows of it: whether it rests after a failure, whether it is behind.

Laws: of one row's events the next is offered only when the one before has arrived; a sink that took nothing rests,
longer each time, and is then asked with a single message. Knows no database.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Final

from fhir_sched.events.sink import Failure, Message, Refused, Sink, Unavailable
from fhir_sched.events.tally import Tally

log = logging.getLogger("fhir_sched.events")

_FIRST_REST_S: Final = 0.25
_LONGEST_REST_S: Final = 8.0
_LONGEST_WISH_S: Final = 300.0

Failures = dict[str, Failure | None]
"""Why messages did not arrive, by id; None for one that was not offered at all."""


class Channel:
    """`behind`: something is still to be sent from the deliveries, so that new events go there too."""

    def __init__(self, sink: Sink, tally: Tally) -> None:
        self.sink = sink
        self.name = sink.name
        self.behind = False
        self.more = asyncio.Event()
        self._tally = tally
        self._failures = 0
        self._rests_until = 0.0

    @property
    def rest_s(self) -> float:
        """For how many seconds it still rests."""
        return max(self._rests_until - time.monotonic(), 0.0)

    @property
    def batch(self) -> int:
        """How many messages to offer at once: one where it has just failed."""
        return 1 if self._failures else self.sink.batch

    async def offer(self, messages: Sequence[Message], within_s: float) -> Failures:
        """Send the messages, in order for each row; those that did not arrive."""
        if self.rest_s:
            return dict.fromkeys((message.id for message in messages), None)
        failures: Failures = {}
        left = list(messages)
        deadline = time.monotonic() + within_s
        while left:
            wave, left = (left, []) if self.sink.in_order else _wave(left, failures)
            if not wave:
                break
            results = await self._send(wave, deadline - time.monotonic())
            failures |= {message.id: failure for message, failure in zip(wave, results, strict=True) if failure}
            if self._judge(results):
                failures |= dict.fromkeys((message.id for message in left), None)
                break
            stuck = {message.aggregate for message in wave if message.id in failures}
            failures |= {message.id: None for message in left if message.aggregate in stuck}
        return failures

    async def _send(self, wave: Sequence[Message], within_s: float) -> Sequence[Failure | None]:
        try:
            async with asyncio.timeout(max(within_s, 0.01)):
                return await self.sink.send(wave)
        except TimeoutError:
            return [Unavailable("no answer in time")] * len(wave)
        except Exception:
            # a sink that fails itself must not end the relay: what it was to take is sent again
            log.exception("a sink failed", extra={"fields": {"sink": self.name}})
            return [Unavailable("the sink failed")] * len(wave)

    def _judge(self, results: Sequence[Failure | None]) -> bool:
        """Count the results; whether the sink rests now."""
        unavailable = [failure for failure in results if isinstance(failure, Unavailable)]
        refused = sum(isinstance(failure, Refused) for failure in results)
        arrived = len(results) - len(unavailable) - refused
        self._tally.delivered[self.name] += arrived
        self._tally.refused[self.name] += refused
        self._tally.unavailable[self.name] += len(unavailable)
        wish_s = max((failure.wait_s for failure in unavailable), default=0.0)
        if not wish_s and (not unavailable or arrived or refused):
            self._failures = 0
            return False
        self._failures += 1
        rest_s = min(_FIRST_REST_S * 2 ** min(self._failures - 1, 20), _LONGEST_REST_S) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        self._rests_until = time.monotonic() + max(rest_s, min(wish_s, _LONGEST_WISH_S))
        log.warning("a sink is not available", extra={"fields": {"sink": self.name, "problem": str(unavailable[0])}})
        return True


def _wave(messages: Sequence[Message], failures: Failures) -> tuple[list[Message], list[Message]]:
    """The first message of each row, and the rest; without those that have failed already."""
    wave: list[Message] = []
    rest: list[Message] = []
    rows: set[str] = set()
    for message in messages:
        if message.id in failures:
            continue
        (rest if message.aggregate in rows else wave).append(message)
        rows.add(message.aggregate)
    return wave, rest
