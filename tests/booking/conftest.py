"""Fixtures of tests over HTTP: the server of the module, and a tenant for each test or for the module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clinic import Clinic
from db import Database
from server import Server


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
