"""Fixtures of every test that needs PostgreSQL: a cluster a run, a migrated copy a module, a tenant a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import received
from clinic import Clinic
from db import APP_PASSWORD, Cluster, Database
from db import cluster as running_cluster
from fhir_sched.db import migrations
from server import Server

TESTS = Path(__file__).parent
ALONE = (
    "faults", "replica", "validator", "http/test_admission.py", "http/test_ending.py", "http/test_slow_clients.py",
    "db", "booking/test_moments.py", "booking/test_race.py",
)  # fmt: skip
"""Tests that kill, race, wait for or measure what another process on the machine would disturb, and the validator."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks of this suite."""
    config.addinivalue_line("markers", "after_all_others: looks at what the other tests have received")
    config.addinivalue_line("markers", "alone: must not run beside other tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run alone, and bring those that look at the others' answers to the end."""
    for item in items:
        if any(item.path.is_relative_to(TESTS / each) for each in ALONE):
            item.add_marker("alone")
    items.sort(key=lambda item: item.get_closest_marker("after_all_others") is not None)


def pytest_sessionfinish() -> None:
    """Hand over what this process has received, where the run has several."""
    folder = received.folder()
    if folder is not None:
        received.hand_over(folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """PostgreSQL without durability, for this run alone."""
    with running_cluster() as started:
        yield started


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> Iterator[str]:
    """Name of a migrated, empty database that nobody is connected to."""
    name = cluster.create()
    migrations.migrate(cluster.database(name).admin_url, app_password=APP_PASSWORD)
    yield name
    cluster.drop(name)


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """A migrated, empty database for this module."""
    with cluster.fresh(template) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """A database without any table for this module."""
    with cluster.fresh() as fresh:
        yield fresh


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[Server]:
    """The server on `database`, in a process of its own, for this module."""
    with Server(database.app_url) as running:
        yield running


@pytest.fixture
def tenant() -> UUID:
    """A tenant that no other test writes to."""
    return uuid4()


@pytest.fixture
def clinic(server: Server, database: Database) -> Iterator[Clinic]:
    """A tenant without any row, for this test."""
    made = Clinic(server, database)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(server: Server, database: Database) -> Iterator[Clinic]:
    """A tenant for the whole module, whose rows nobody changes."""
    made = Clinic(server, database)
    yield made
    made.close()
