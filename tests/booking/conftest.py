"""Fixtures of the tests about booking: a server that asks for tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authority import Authority
from db import Database
from server import Server


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Whose tokens count."""
    return Authority()


@pytest.fixture(scope="module")
def guarded(database: Database, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens; their audience is `fhir`."""
    settings = {"issuer": authority.issuer, "jwks_url": authority.write(tmp_path_factory.mktemp("keys"))}
    with Server(database.app_url, auth="smart", audience="fhir", **settings) as running:
        yield running
