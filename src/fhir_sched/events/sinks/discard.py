"""`discard:` takes every event and forgets it: for an outbox that nobody wants to read and that is to stay small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_sched.events.sink import Failure, Message
from fhir_sched.events.sinks.options import Options


@dataclass
class DiscardSink:
    """A sink."""

    name: str
    url: str
    options: Options
    batch: int = 1_000
    in_order: bool = True

    async def open(self) -> None:
        """Nothing is needed."""

    async def send(self, messages: Sequence[Message]) -> Sequence[Failure | None]:
        """It always has everything."""
        return [None] * len(messages)

    async def close(self) -> None:
        """Nothing is held."""
