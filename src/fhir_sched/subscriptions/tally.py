"""What the sender counts, and how subscriptions stand: for /metrics. Knows neither tenants nor endpoints.

Law: the one word that is told of a subscription is its channel's type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from fhir_sched.db.fragment import Fragment
from fhir_sched.subscriptions.database import Row, text

CHANNEL: Final = "rest-hook"
STATUSES: Final = ("requested", "active", "error", "off")
FIGURES: Final = Fragment(
    "select f.status, f.subscriptions, f.waiting, coalesce(extract(epoch from clock_timestamp() - f.oldest), 0)\n"
    "from fhir_sched_subscription_figures() f"
)
"""How many subscriptions there are in each status, the events that wait for the active ones, since when (seconds)."""


@dataclass
class Heard:
    """Counted since the start: notifications that were `taken` and that `failed`, by kind, and `events` in the taken.

    `standing` (by status), `waiting` events of active subscriptions and `oldest_s` since the oldest of them was
    committed are of the whole database, looked up every few seconds.
    """

    taken: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    events: int = 0
    standing: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    oldest_s: float = 0.0

    def stands(self, rows: Iterable[Row]) -> None:
        """Take over the rows of `FIGURES`."""
        found = [[text(cell) for cell in row] for row in rows]
        self.standing = dict.fromkeys(STATUSES, 0) | {status: int(count) for status, count, _, _ in found}
        self.waiting = sum(int(waiting) for _, _, waiting, _ in found)
        self.oldest_s = max((float(oldest) for *_, oldest in found), default=0.0)
