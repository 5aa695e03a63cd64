"""Fixtures of the tests about Subscriptions: a server that sends to this machine, and subscribers that listen on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clinic import Clinic
from db import Database
from server import Server
from subscriber import Subscriber


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[Server]:
    """The server on `database`, which may send to private addresses."""
    with Server(database.app_url, allow_private_endpoints="true") as running:
        yield running


@pytest.fixture
def clinic(server: Server, database: Database) -> Iterator[Clinic]:
    """A tenant without any row, for this test."""
    made = Clinic(server, database)
    yield made
    made.close()


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    """A real HTTP server that keeps what is posted to it."""
    with Subscriber().running() as running:
        yield running
