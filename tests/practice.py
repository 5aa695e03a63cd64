"""A tenant that is used with tokens: by staff and by a patient."""

from __future__ import annotations

from typing import Any

import httpx

from authority import Authority
from clinic import Clinic, Resource, row_id
from db import Database
from server import Server

ANN = "Patient/00000000-0000-4000-8000-0000000000a1"


class Practice(Clinic):
    """`http` is staff, `ann` a patient; the server asks for tokens with the audience `fhir`."""

    def __init__(self, server: Server, database: Database, authority: Authority) -> None:
        super().__init__(server, database)
        self.http.close()
        self.http = self.client(authority, "user/*.cruds", fhirUser="Practitioner/7")
        self.ann = self.client(authority, "patient/*.cruds", patient=ANN)

    def close(self) -> None:
        super().close()
        self.ann.close()

    def client(self, authority: Authority, scope: str, **claims: Any) -> httpx.Client:
        """Somebody with a token."""
        token = authority.token(self.tenant, "fhir", scope=scope, **claims)
        return self.server.fhir(self.tenant, headers={"Authorization": f"Bearer {token}"})

    def rule(self, rule: str, value: int | None, caller: str = "portal", of: Resource | None = None) -> None:
        """Set a rule of the tenant or of one schedule."""
        schedule = None if of is None else row_id(of)
        self.sql("insert into booking_rules values (%s, %s, %s, %s, %s)", self.tenant, caller, schedule, rule, value)
