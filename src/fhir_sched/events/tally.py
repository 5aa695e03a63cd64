"""What the relay counts: for /metrics of the server, and for its own. Knows nothing of who asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counted since the start, by sink: messages `delivered`, `refused` by it, `unavailable` (it was not reached).

    `waiting` events (counted up to 100,000), `oldest_s` since the oldest of them was written (0 without one) and
    `parked` are of the whole database, looked up every few seconds.
    """

    delivered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unavailable: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    oldest_s: float = 0.0
    parked: int = 0
