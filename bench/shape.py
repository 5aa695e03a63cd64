"""What the benchmark's database holds, as arithmetic: every id and time follows from a number.

So the loader, the load generator and pgbench agree without telling each other: each formula stands here once for
Python and once for SQL, side by side. Slot n is the (n mod 2,000)th of schedule n div 2,000; every fourth slot has an
appointment; a practitioner has two schedules, mornings and evenings, so that his times never overlap.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

TENANTS = 10
SCHEDULES = 2_000
SLOTS_EACH = 2_000
SLOTS = SCHEDULES * SLOTS_EACH
APPOINTMENTS = SLOTS // 4
FREE = SLOTS - APPOINTMENTS
SLOTS_A_DAY = 24
MINUTES = 20
DAYS = SLOTS_EACH // SLOTS_A_DAY + 1
PATIENTS = 200_000
TYPES = ("checkup", "followup", "walkin", "routine", "emergency")
FIRST_DAY = datetime(2030, 1, 1, tzinfo=UTC)
LOADER = "10ade400-0000-4000-8000-000000000000"
"""`created_by` of the appointments that were loaded; others are of a benchmark's bookings."""


def key(kind: str, number: int) -> str:
    """The id of the number-th thing of a kind (t tenant, s schedule, n slot, a appointment, p patient, d doctor)."""
    return str(uuid.UUID(hashlib.md5(f"{kind}{number}".encode(), usedforsecurity=False).hexdigest()))


def key_sql(kind: str, number: str) -> str:
    """The same in SQL; `number` is an SQL expression of an integer."""
    return f"md5('{kind}' || {number})::uuid"


def tenant_of(schedule: int) -> int:
    """The tenant's number."""
    return schedule % TENANTS


def doctor_of(schedule: int) -> int:
    """The practitioner's number: schedules k and k + 1,000 are one practitioner's, of one tenant."""
    return schedule % (SCHEDULES // 2)


def start_of(slot: int) -> datetime:
    """When a slot begins, UTC."""
    schedule, index = divmod(slot, SLOTS_EACH)
    day, place = divmod(index, SLOTS_A_DAY)
    return FIRST_DAY + timedelta(days=day, hours=8 * (1 + schedule // (SCHEDULES // 2)), minutes=MINUTES * place)


def start_sql(slot: str) -> str:
    """The same in SQL, a timestamptz."""
    index = f"(({slot}) % {SLOTS_EACH})"
    seconds = (
        f"{int(FIRST_DAY.timestamp())} + {index} / {SLOTS_A_DAY} * 86400"
        f" + (1 + ({slot}) / {SLOTS_EACH} / {SCHEDULES // 2}) * 28800 + {index} % {SLOTS_A_DAY} * {MINUTES * 60}"
    )
    return f"to_timestamp({seconds})"


def end_of(slot: int) -> datetime:
    """When a slot ends, UTC."""
    return start_of(slot) + timedelta(minutes=MINUTES)


def end_sql(slot: str) -> str:
    """The same in SQL."""
    return f"({start_sql(slot)} + interval '{MINUTES} minutes')"


def booked(number: int) -> int:
    """The slot of the number-th appointment that was loaded."""
    return number * 4 + 3


def free(turn: int) -> int:
    """The turn-th free slot, each turn in another schedule: no slot comes twice before all have come."""
    schedule = turn * 1237 % SCHEDULES
    round_ = turn // SCHEDULES
    return schedule * SLOTS_EACH + round_ // 3 * 4 + round_ % 3


FREE_PGBENCH = f"""\
\\set schedule :turn * 1237 % {SCHEDULES}
\\set round :turn / {SCHEDULES}
\\set slot :schedule * {SLOTS_EACH} + :round / 3 * 4 + :round % 3
"""
"""`free` as pgbench computes it, from `turn` to `schedule` and `slot`."""
