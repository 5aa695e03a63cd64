"""What the connections of a process tell about themselves, for metrics. Knows nothing of who asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """`shared` (all for reads) and `exclusive` are connected lanes, `in_flight` requests on shared ones,
    `in_use` borrowed ones.

    `queued` requests wait for an exclusive lane. Counted since the start: `waits` for one and `waited_s` (seconds),
    `round_trips`, connections `lost`.
    """

    shared: int
    exclusive: int
    in_flight: int
    in_use: int
    queued: int
    waits: int
    waited_s: float
    round_trips: int
    lost: int
