"""What a sink is: somewhere events go. One small module in `sinks/` for each kind.

Law: `send` returns for each message None when it is certain that the sink has it, else why not; it never raises for
what a sink does. Messages of one call are about different rows, so their order among each other is free; a sink that is
`in_order`, which takes all of a call or nothing, is given them as they were written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: `body` is the CloudEvent as JSON; `aggregate` the row within whose events the order counts."""

    id: str
    tenant: str
    type: str
    aggregate: str
    body: bytes


class SinkError(Exception):
    """Why a sink cannot be used as it was named: one line for the operator."""


class Failure(Exception):  # noqa: N818 - it is handed back, not raised across modules
    """Why a message did not arrive, in words that hold nothing of the message."""


class Refused(Failure):
    """The sink does not want this message; sending it again may not help."""


class Unavailable(Failure):
    """The sink cannot take messages now. `wait_s`: for how long it asks to be left alone."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


class Sink(Protocol):
    """`name` tells it from others, in the database too, and holds no secret; `batch` is how many messages it likes."""

    name: str
    batch: int
    in_order: bool

    async def open(self) -> None:
        """Look whether the sink can be used at all. Raises SinkError; one that is merely down is no error."""

    async def send(self, messages: Sequence[Message]) -> Sequence[Failure | None]:
        """What became of each message, in their order."""

    async def close(self) -> None:
        """Let go of connections."""


async def each(
    messages: Sequence[Message], send: Callable[[Message], Awaitable[None]], at_once: int
) -> list[Failure | None]:
    """`send` for each message, that many at once; what it raised of Failure."""
    places = asyncio.Semaphore(at_once)

    async def one(message: Message) -> Failure | None:
        async with places:
            try:
                await send(message)
            except Failure as failure:
                return failure
            return None

    return list(await asyncio.gather(*map(one, messages)))
