"""Fixtures of the tests about Subscriptions: a server that sends to this machine, and subscribers that listen on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from db import Database
from server import Server
from subscriber import Subscriber


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[Server]:
    """The server on `database`, which may send to private addresses."""
    with Server(database.app_url, allow_private_endpoints="true") as running:
        yield running


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    """A real HTTP server that keeps what is posted to it."""
    with Subscriber().running() as running:
        yield running
