"""What bookings notice of a relay: pgbench without one and beside one by turns, so that other work hits both.

Two cases. `steady`: bookings come at a rate that leaves the processors room, as in service; what they notice then is
what a relay locks, writes and flushes, and how often it wakes. `full`: as many as the machine can take; there a relay
on the same machine takes its share of the processors, which no relay can avoid. The second case is also run with a
trigger that notifies at every commit.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from typing import Any

import psycopg

from bench import pgbench
from bench.catching import Script
from bench.relaying import relay
from fhir_sched.db import embedded

_CLIENTS = 8
_SECONDS = 4
_STEADY_PER_S = 100
_STEADY_SECONDS = 6
_BOOK = """
select set_config('app.tenant_id', '00000000-0000-4000-8000-00000000000b', true);
insert into appointments (tenant_id, patient_id, slot_id, start_at, end_at, created_by)
select s.tenant_id, gen_random_uuid(), s.id, s.start_at, s.end_at, s.tenant_id
from bench_turns t
join slots s on s.tenant_id = '00000000-0000-4000-8000-00000000000b' and s.id = t.slot_id
where t.turn = (select nextval('bench_turn'));
"""
_ALWAYS = """
create or replace trigger outbox_50_wake after insert on outbox
    for each statement execute function fhir_sched_wake_relay()
"""
_ASLEEP = """
create or replace trigger outbox_50_wake after insert on outbox
    for each statement when (not pg_try_advisory_xact_lock_shared(7378697629483821640))
    execute function fhir_sched_wake_relay()
"""


def measured(running: embedded.Embedded, rounds: int) -> dict[str, Any]:
    """Medians of bookings a second and of their p50 and p99 in ms, and of the ratios of each pair of runs."""
    _openings(running, rounds * (3 * _SECONDS * 3_000 + 4 * _STEADY_SECONDS * 2 * _STEADY_PER_S))
    return _full(running, rounds) | _steady(running, rounds * 2)


def _steady(running: embedded.Embedded, pairs: int) -> dict[str, Any]:
    alone: list[pgbench.Limit] = []
    beside: list[pgbench.Limit] = []
    for number in range(pairs):
        for case in ("no_relay", "relay") if number % 2 else ("relay", "no_relay"):
            limit = _run(running, case, _STEADY_SECONDS, _STEADY_PER_S)
            (alone if case == "no_relay" else beside).append(limit)
    found: dict[str, Any] = {"steady_bookings_per_s": _STEADY_PER_S}
    for name in ("p50_ms", "p99_ms"):
        pairs_of = [(getattr(a, name), getattr(b, name)) for a, b in zip(alone, beside, strict=True)]
        found[f"steady_no_relay_{name}"] = round(statistics.median(a for a, _ in pairs_of), 1)
        found[f"steady_relay_{name}"] = round(statistics.median(b for _, b in pairs_of), 1)
        found[f"steady_{name}_ratio"] = round(statistics.median(b / a for a, b in pairs_of), 3)
    return found


def _full(running: embedded.Embedded, rounds: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for case in ("no_relay", "relay", "notify_always"):
            limit = _run(running, case, _SECONDS)
            found.setdefault(f"full_{case}_per_s", []).append(limit.tps)
            found.setdefault(f"full_{case}_p99_ms", []).append(limit.p99_ms)
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def _run(running: embedded.Embedded, case: str, seconds: float, rate: float = 0) -> pgbench.Limit:
    """Bookings with the same SQL; the outbox is emptied before."""
    with psycopg.connect(running.admin_url, autocommit=True) as connection:
        connection.execute("truncate outbox, outbox_deliveries")
        connection.execute(_ALWAYS if case == "notify_always" else _ASLEEP)
        connection.execute("checkpoint")
    with nullcontext() if case == "no_relay" else relay(running, "discard:"):
        # without one as well: what the checkpoint began is over then in both
        time.sleep(2.5)
        script = Script(_BOOK, {})
        return pgbench.run(running.admin_url, script, clients=_CLIENTS, seconds=seconds, rate=rate)


def _openings(running: embedded.Embedded, count: int) -> None:
    """That many free slots, in schedules of 5,000, with a number each."""
    with psycopg.connect(running.admin_url, autocommit=True) as connection:
        connection.execute("set app.quiet_slots = on")
        connection.execute(
            """
            with made as (
                insert into schedules (tenant_id, actor_id, actor_type)
                select '00000000-0000-4000-8000-00000000000b', gen_random_uuid(), 'provider'
                from generate_series(0, %s)
                returning id
            )
            insert into slots (tenant_id, schedule_id, start_at, end_at)
            select '00000000-0000-4000-8000-00000000000b', made.id, at, at + interval '15 minutes'
            from made
            cross join (
                select timestamptz '2031-01-01' + n * interval '15 minutes' as at from generate_series(1, 5000) n
            ) times
            """,
            [count // 5_000],
        )
        connection.execute(
            "create table bench_turns as select row_number() over () as turn, id as slot_id from slots"
            " where tenant_id = '00000000-0000-4000-8000-00000000000b'"
        )
        connection.execute("create unique index on bench_turns (turn)")
        connection.execute("create sequence bench_turn cache 50")
        connection.execute("vacuum analyze")
