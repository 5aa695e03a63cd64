"""Tokens for a server that asks for them: the benchmark's requests, signed for the tenant that each is about.

They come from a development key of the run's own. A token is verified when it is first seen and remembered then, so
what is measured is what a client's second and later requests cost.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench import shape
from fhir_sched.security import development
from fhir_sched.settings import load

_TENANT = re.compile(rb" /fhir/([0-9a-f-]{36})")
_LIFE_S = 12 * 3600
_SCOPE = "user/*.cruds"
_USER = "Practitioner/bench"


class Tokens:
    """One token for each tenant of the data; `signed` puts it into raw requests."""

    def __init__(self, data_dir: Path, port: int) -> None:
        settings = load(data_dir=data_dir, port=port)
        self._headers: dict[bytes, bytes] = {}
        for number in range(shape.TENANTS):
            tenant = shape.key("t", number)
            claims = development.claims(
                settings, tenant=tenant, scope=_SCOPE, patient=None, user=_USER, subject="bench", client="bench"
            )
            token = development.mint(data_dir, claims, _LIFE_S)
            self._headers[tenant.encode()] = f"\r\nAuthorization: Bearer {token}".encode()

    def signed(self, raw: bytes) -> bytes:
        """The request with its tenant's token behind the first line."""
        found = _TENANT.search(raw)
        if found is None:
            return raw
        end = raw.index(b"\r\n")
        return raw[:end] + self._headers[found[1]] + raw[end:]

    def of(self, path: str) -> dict[str, str]:
        """The header for a path."""
        found = _TENANT.search(b" " + path.encode())
        name, _, value = self._headers[found[1]].strip().decode().partition(": ") if found else ("", "", "")
        return {name: value} if name else {}
