"""The clinic of tests over HTTP, which stands in tests/fhir as well."""

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
