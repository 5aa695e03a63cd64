"""SMART's two ways to a token, each by clients and an authorization server of other makers. SMART App Launch 2.2.

An app that an EHR launches (the SMART JavaScript client, code flow with PKCE) and a backend service (openid-client with
private_key_jwt); oidc-provider issues the tokens, our server finds its keys by discovery and checks each.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Self
from uuid import UUID, uuid4

import pytest
from joserfc.jwk import ECKey

import foreign
from clients.opening import PATIENT, Opening
from clinic import Clinic
from db import Database
from server import Server


class Ehr:
    """An authorization server in a process of its own; `key` is the private key of its backend client."""

    def __init__(self) -> None:
        self.key = {**ECKey.generate_key("P-384").as_dict(private=True), "kid": "backend", "alg": "ES384"}
        public = {name: value for name, value in self.key.items() if name != "d"}
        self._process = subprocess.Popen(
            [*foreign.javascript("authority.mjs"), json.dumps({"keys": [public]})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.issuer = self._said()

    def knows(self, **told: str) -> None:
        """Tell it of a FHIR server that it protects, or of a launch."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        assert self._said() == "known"

    def _said(self) -> str:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout.readline().strip() or pytest.fail(self._process.stderr.read()[-4000:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=15)
        finally:
            self._process.kill()


@pytest.fixture(scope="module")
def ehr() -> Iterator[Ehr]:
    """One for this module."""
    with Ehr() as running:
        yield running


@pytest.fixture(scope="module")
def guarded(database: Database, ehr: Ehr) -> Iterator[Server]:
    """The server as it is by default, which trusts the EHR's tokens."""
    with Server(database.app_url, auth="smart", issuer=ehr.issuer) as running:
        yield running


def walked(program: str, *arguments: str, stdin: str = "") -> list[str]:
    """The steps that a program says went well."""
    command = [*foreign.javascript(program), *arguments]
    done = subprocess.run(command, check=False, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"after {done.stdout.splitlines()}: {done.stderr[-4000:]}"
    return done.stdout.splitlines()


@pytest.mark.parametrize(("who", "user"), [("patient", f"Patient/{PATIENT}"), ("user", "Practitioner/7")])
def test_an_app_that_the_ehr_launches_books_with_the_token_it_is_given(
    opening: Opening, server: Server, database: Database, guarded: Server, ehr: Ehr, who: str, user: str
) -> None:
    tenant = opening.base.rpartition("/")[2]
    others = booked_for_another(opening, server, database)
    ehr.knows(base=guarded.base(tenant), tenant=tenant)
    launch = uuid4().hex
    ehr.knows(launch=launch, user=uuid4().hex, fhirUser=user, patient=PATIENT)

    steps = walked("launch.mjs", guarded.base(tenant), opening.schedule, launch, who, others)

    assert steps == ["launch", "free slots", "book", "other patients", "cancel", "find, hold, book"]


def test_a_backend_service_with_a_key_of_its_own_fills_a_calendar_and_books(guarded: Server, ehr: Ehr) -> None:
    tenant, other = str(uuid4()), str(uuid4())
    for each in (tenant, other):
        ehr.knows(base=guarded.base(each), tenant=each)

    steps = walked("backend.mjs", guarded.base(tenant), guarded.base(other), stdin=json.dumps(ehr.key))

    assert steps == ["token", "calendar", "book", "narrow token", "other tokens"]


def booked_for_another(opening: Opening, server: Server, database: Database) -> str:
    """`Appointment/id` of another patient's appointment, in the last of the free slots."""
    clinic = Clinic(server, database, UUID(opening.base.rpartition("/")[2]))
    last = clinic.matches(f"Slot?schedule={opening.schedule}&_sort=-start&_count=1")[0]
    made = clinic.booked(last, participant=[{"actor": {"reference": "Patient/other"}, "status": "accepted"}])
    clinic.close()
    return f"Appointment/{made['id']}"
