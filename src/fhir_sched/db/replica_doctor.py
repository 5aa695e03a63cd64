"""What is wrong with a replica, and how to mend it: for `fhir-sched check` and for the start of the server.

Law: the replica is a physical standby of the primary's cluster, asked for the same database as the same role; so what
`doctor` found out about row-level security on the primary holds there. What can mend itself stops no server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import psycopg

from fhir_sched.db.doctor import Finding
from fhir_sched.db.freshness import LEASE_S

_WHO: Final = """
select (select system_identifier from pg_control_system()), current_database(), current_user::text, pg_is_in_recovery()
"""
_STATE: Final = """
select pg_last_wal_replay_lsn() >= %s::pg_lsn, pg_is_wal_replay_paused(),
       (select timeline_id from pg_control_checkpoint()) = ('x' || %s)::bit(32)::integer
"""
_SAME: Final = "name a standby of the primary's cluster, the same database and the same role in FHIR_SCHED_REPLICA_URL"


def check(url: str, replica_url: str) -> list[Finding]:
    """Everything that keeps reads from the replica; empty when it can be used. A lagging one is given a moment."""
    return _look(url, replica_url, lasting=False)


def mistakes(url: str, replica_url: str) -> list[Finding]:
    """Those of them that are wrong settings and not a state that passes, such as a replica that is down."""
    return _look(url, replica_url, lasting=True)


def _look(url: str, replica_url: str, *, lasting: bool) -> list[Finding]:
    try:
        with psycopg.connect(replica_url, connect_timeout=5, application_name="fhir-sched check") as replica:
            replica.autocommit = True
            with psycopg.connect(url, connect_timeout=10, application_name="fhir-sched check") as primary:
                primary.autocommit = True
                found = list(_lasting(primary, replica))
                return found if found or lasting else list(_passing(primary, replica))
    except psycopg.Error as error:
        if lasting:
            return []
        said = " ".join(str(error).split())
        return [Finding(f"the replica cannot be asked, so that reads go to the primary: {said}", "see that it runs")]


def _lasting(primary: psycopg.Connection, replica: psycopg.Connection) -> Iterator[Finding]:
    here, there = primary.execute(_WHO).fetchone(), replica.execute(_WHO).fetchone()
    if here is None or there is None:
        return
    for what, ours, theirs in zip(("cluster", "database", "role"), here, there, strict=False):
        if ours != theirs:
            yield Finding(f"the replica is asked for another {what}, {theirs} and not {ours}", _SAME)


def _passing(primary: psycopg.Connection, replica: psycopg.Connection) -> Iterator[Finding]:
    there = replica.execute(_WHO).fetchone()
    if there is not None and not there[3]:
        yield Finding("the replica is no standby, so that reads go to the primary", _SAME)
        return
    # a commit, so that what is flushed ends with a record
    primary.execute("select pg_logical_emit_message(true, 'fhir-sched', '')")
    mark = primary.execute(
        "select pg_current_wal_flush_lsn()::text, left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)"
    ).fetchone()
    until = time.monotonic() + LEASE_S
    while (state := replica.execute(_STATE, mark).fetchone()) and not state[0] and time.monotonic() < until:
        time.sleep(0.01)
    if state is None:
        return
    replayed, paused, same_timeline = state
    if paused:
        yield Finding("replay is paused on the replica", "as a superuser, there: select pg_wal_replay_resume()")
    elif not replayed:
        yield Finding(
            f"the replica is more than {LEASE_S:g} s behind, so that reads go to the primary",
            "see that it receives what the primary sends, and recovery_min_apply_delay",
        )
    if not same_timeline:
        yield Finding(
            "the replica is on another timeline than the primary, so that reads go to the primary",
            "after a failover it passes with the replica's next restartpoint (checkpoint_timeout); else make it anew",
        )
