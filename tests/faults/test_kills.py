"""The server and PostgreSQL are killed under a load of bookings, again and again; nothing is lost, nothing half done.

The clients' own history is held against the database after every kill.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.checker import violations
from faults.conftest import Scale
from faults.ledger import End, Operation
from faults.state import read_state
from faults.world import Load, World, eventually, loaded

CYCLES_A_TENANT = 10
POSTGRES_WAYS = ("all", "immediate", "backend")


def test_a_server_that_is_killed_loses_and_halves_nothing(
    world: World, tmp_path: Path, scale: Scale, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(_: int) -> None:
        world.kill_server()
        world.start_server()

    ends = _cycles(world, tmp_path, "server", scale.server_kills, kill, capsys)
    assert ends[End.UNKNOWN] + ends[End.UNSENT] > 0


def test_a_postgresql_that_is_killed_loses_and_halves_nothing(
    world: World, tmp_path: Path, scale: Scale, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(cycle: int) -> None:
        world.kill_postgres(POSTGRES_WAYS[cycle % len(POSTGRES_WAYS)])
        world.start_postgres()
        eventually(world.ready, "the server is ready again")

    ends = _cycles(world, tmp_path, "PostgreSQL", scale.postgres_kills, kill, capsys)
    assert ends[End.UNKNOWN] > 0


def test_commits_that_are_not_written_before_they_are_acknowledged_are_missed(world: World, tmp_path: Path) -> None:
    """The guard taken away: what the two tests above look for is there to be found."""
    _set_up(world, "synchronous_commit = off", "wal_writer_delay = '10s'")
    try:
        with loaded(world, tmp_path, seed=3) as load:
            load.work()
            time.sleep(1.5)
            world.kill_postgres("all")
            world.start_postgres()
            load.rest()
            eventually(world.quiet, "no connection is about anything")
            with world.admin() as connection:
                found = violations(load.operations(), read_state(connection, load.tenant))
            assert [sentence for sentence in found if "was acknowledged" in sentence]
    finally:
        _set_up(world, "synchronous_commit = default", "wal_writer_delay = default")


def _set_up(world: World, *settings: str) -> None:
    with world.admin() as connection:
        for setting in settings:
            connection.execute(f"alter system set {setting}".encode())
        connection.execute("select pg_reload_conf()")


def _cycles(
    world: World,
    folder: Path,
    what: str,
    cycles: int,
    kill: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> Counter[End]:
    """Load, kill, start, load, check, that many times; how the operations ended."""
    chance = random.Random(what)
    ends: Counter[End] = Counter()
    began = time.monotonic()
    for first in range(0, cycles, CYCLES_A_TENANT):
        with loaded(world, folder, seed=first) as load:
            for cycle in range(first, min(first + CYCLES_A_TENANT, cycles)):
                load.work()
                time.sleep(chance.uniform(0.1, 0.6))
                kill(cycle)
                time.sleep(0.1)
                load.rest()
                operations = _checked(world, load)
            found = Counter(operation.end for operation in operations)
            ends += found
            assert found[End.OK] > 0
        done = min(first + CYCLES_A_TENANT, cycles)
        counts = ", ".join(f"{ends[end]} {end}" for end in End)
        with capsys.disabled():
            print(f"\n{what} killed {done} of {cycles} times in {time.monotonic() - began:.0f} s: {counts}", end="")
    return ends


def _checked(world: World, load: Load) -> list[Operation]:
    """The operations, after nothing wrong was found with them or with the data."""
    eventually(world.quiet, "no connection is about anything")
    operations = load.operations()
    with world.admin() as connection:
        found = violations(operations, read_state(connection, load.tenant))
    if found:
        pytest.fail(f"{len(found)} violations, ledger {load.ledger}:\n" + "\n".join(found[:40]), pytrace=False)
    return operations
