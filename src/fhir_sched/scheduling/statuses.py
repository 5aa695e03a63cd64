"""Which status of an Appointment may follow which. R4 has none of it (12.2.4 names the codes only); this is ours.

Creates are free, and so is a change that leaves the status. The database applies it; a test holds both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NEXT: Final[Mapping[str, tuple[str, ...]]] = {
    "proposed": ("pending", "booked", "arrived", "checked-in", "cancelled", "entered-in-error"),
    "pending": ("proposed", "booked", "arrived", "checked-in", "noshow", "cancelled", "entered-in-error"),
    "booked": (
        "proposed", "pending", "arrived", "checked-in", "fulfilled", "noshow", "cancelled", "entered-in-error",
    ),
    "arrived": ("booked", "checked-in", "fulfilled", "noshow", "cancelled", "entered-in-error"),
    "checked-in": ("booked", "arrived", "fulfilled", "noshow", "cancelled", "entered-in-error"),
    "fulfilled": ("arrived", "checked-in", "noshow", "entered-in-error"),
    "noshow": ("booked", "arrived", "checked-in", "cancelled", "entered-in-error"),
    "cancelled": ("proposed", "pending", "booked", "noshow", "entered-in-error"),
    "entered-in-error": (),
}  # fmt: skip
"""The statuses that may follow one, in the order in which a visit goes."""


def refused(before: str, after: str) -> str:
    """Why `after` can't follow `before`, and what can."""
    allowed = NEXT.get(before, ())
    said = f"after {before!r} it may be {', '.join(allowed)}" if allowed else f"{before!r} is final"
    return f"the status can't become {after!r}: {said}."
