"""Tokens that only the authorization server can read: asked of it, and its answer kept briefly. RFC 7662.

Knows no cache: whoever asks is told how long the answer counts.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_sched.security import claims as rules
from fhir_sched.security.claims import ClaimError
from fhir_sched.security.fetching import Fetcher
from fhir_sched.settings import Settings
from fhir_sched.trust import parse

KEPT_S: Final = 30
"""How long an answer counts; a token that is revoked counts no longer than this."""


class Introspection:
    """The introspection endpoint of the settings."""

    def __init__(self, settings: Settings, fetcher: Fetcher) -> None:
        self._url = settings.introspection_url or ""
        self._user = settings.introspection_client_id or ""
        self._password = settings.introspection_client_secret or ""
        self._fetcher = fetcher
        named = [each.url for each in parse(settings.issuers)] if settings.issuers else []
        self._issuers = [*([settings.issuer] if settings.issuer else []), *named]

    async def ask(self, token: str, now: float) -> tuple[dict[str, Any], str, float]:
        """The token's claims, its issuer, and until when the answer counts. Raises ClaimError, FetchError."""
        form = {"token": token, "token_type_hint": "access_token"}
        claims = await self._fetcher.post(self._url, form, self._user, self._password)
        if claims.get("active") is not True:
            raise ClaimError("the token is not active")
        if str(claims.get("token_type", "bearer")).lower() not in ("bearer", "access_token"):
            raise ClaimError("the token is no access token")
        if "cnf" in claims:
            raise ClaimError("the token is bound to a key of its client and is no bearer token")
        if "scope" not in claims:
            raise ClaimError("the token has no scope")
        until = min(rules.expiry(claims, now, required=False), now + KEPT_S)
        return claims, self._issuer(claims), until

    def _issuer(self, claims: dict[str, Any]) -> str:
        """The issuer that the answer names, the only one that there is where it names none."""
        if not self._issuers:
            return self._url
        named = claims.get("iss", self._issuers[0] if len(self._issuers) == 1 else None)
        if not isinstance(named, str) or named.rstrip("/") not in self._issuers:
            raise ClaimError("the issuer is not trusted here")
        return named.rstrip("/")
