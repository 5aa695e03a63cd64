"""Fixtures of the tests about tokens: an authorization server whose keys lie in a file, and an authenticator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from authority import Authority, Site
from fhir_sched.security.tokens import Authenticator
from fhir_sched.settings import PREFIX, Settings, load


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """An issuer with an RSA key; no test changes it."""
    return Authority()


@pytest.fixture
def authenticator(authority: Authority, tmp_path: Path) -> Authenticator:
    """One that trusts the authority for every tenant."""
    return Authenticator(load(auth="smart", issuer=authority.issuer, jwks_url=authority.write(tmp_path)))


@pytest.fixture
def site() -> Iterator[Site]:
    """A local HTTP server that a test tells what to answer."""
    with Site().running() as running:
        yield running
