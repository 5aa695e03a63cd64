"""A primary and its standby for these tests, and the server in two processes that reads from the standby."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clinic import Clinic
from db import Database
from server import Server
from standby import Pair, until


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


@pytest.fixture(scope="module")
def server(pair: Pair) -> Iterator[Server]:
    with Server(pair.primary.app_url, workers="2", replica_url=pair.standby.app_url) as running:
        yield running


@pytest.fixture
def clinic(pair: Pair, server: Server) -> Iterator[Clinic]:
    """A tenant of the server, once both processes read the replica."""
    until(lambda: figure(server, "in_use") == 2)
    made = Clinic(server, Database(pair.primary.admin_url, pair.primary.app_url))
    yield made
    made.close()


def figure(server: Server, name: str) -> float:
    """A metric of the replica, of both processes together; 0 before there is one."""
    for line in server.client.get("/metrics").text.splitlines():
        if line.startswith(f"fhir_sched_replica_{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0
