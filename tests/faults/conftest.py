"""The world in which things are killed, and how often: a few times, or many by `FHIR_SCHED_FAULTS=long`.

`FHIR_SCHED_FAULTS_RELAY_KILLS=100` says how often relays are killed, for who has minutes and not an hour.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from faults.world import World


@dataclass(frozen=True)
class Scale:
    """How many times server, PostgreSQL and relay are killed, how many requests tenants mix, how many clients vanish.

    `sink_down_s` is for how many seconds a sink is down.
    """

    server_kills: int
    postgres_kills: int
    mixed_requests: int
    vanishing_clients: int
    relay_kills: int
    sink_down_s: float


SHORT = Scale(
    server_kills=3, postgres_kills=3, mixed_requests=5_000, vanishing_clients=1_000, relay_kills=3, sink_down_s=0.5
)
LONG = Scale(
    server_kills=200,
    postgres_kills=100,
    mixed_requests=50_000,
    vanishing_clients=5_000,
    relay_kills=500,
    sink_down_s=600.0,
)


@pytest.fixture(scope="session")
def scale() -> Scale:
    """Short in the suite, long in `make faults`."""
    found = LONG if os.environ.get("FHIR_SCHED_FAULTS") == "long" else SHORT
    kills = os.environ.get("FHIR_SCHED_FAULTS_RELAY_KILLS")
    return replace(found, relay_kills=int(kills)) if kills else found


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A durable PostgreSQL and a server, for the tests of this folder."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made
