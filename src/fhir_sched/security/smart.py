"""Where a SMART app gets its tokens: smart-configuration and rest.security. SMART App Launch 2.2, "Conformance".

Taken from the issuer's own documents; what they leave out and SMART demands is filled in, and a file of the operator's
(SMART_CONFIGURATION) has the last word. Knows no token.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from fhir_sched.outcome import FhirError, Kind
from fhir_sched.security.discovery import is_endpoint
from fhir_sched.security.fetching import Fetcher, FetchError
from fhir_sched.security.issuers import Issuers
from fhir_sched.settings import Auth, Settings

OAUTH_URIS: Final = {
    "authorize": "authorization_endpoint",
    "token": "token_endpoint",
    "register": "registration_endpoint",
    "manage": "management_endpoint",
    "introspect": "introspection_endpoint",
    "revoke": "revocation_endpoint",
}
"""The parts of the extension oauth-uris, and the members of smart-configuration that say the same."""

SCOPES: Final = (
    "openid", "fhirUser", "launch", "launch/patient", "offline_access", "online_access",
    "patient/Appointment.cruds", "patient/Slot.rs", "patient/Schedule.rs",
    "user/Appointment.cruds", "user/Slot.cruds", "user/Schedule.cruds",
    "system/Appointment.cruds", "system/Slot.cruds", "system/Schedule.cruds",
)  # fmt: skip
_MEMBERS: Final = frozenset(
    {
        "issuer", "jwks_uri", "grant_types_supported", "token_endpoint_auth_methods_supported",
        "token_endpoint_auth_signing_alg_values_supported", "scopes_supported", "response_types_supported",
        "capabilities", "code_challenge_methods_supported", "user_access_brand_bundle", "user_access_brand_identifier",
        "associated_endpoints", *OAUTH_URIS.values(),
    }
)  # fmt: skip
_OURS: Final = ("permission-patient", "permission-user", "permission-v1", "permission-v2")
_BY_METHOD: Final = {
    "none": "client-public",
    "client_secret_basic": "client-confidential-symmetric",
    "client_secret_post": "client-confidential-symmetric",
    "private_key_jwt": "client-confidential-asymmetric",
}


class SmartConfiguration:
    """What the tenants' SMART apps are told; `issuers` are those that the authenticator trusts."""

    def __init__(self, settings: Settings, issuers: Issuers, fetcher: Fetcher) -> None:
        self._open = settings.auth is Auth.OPEN
        self._given = settings.smart_configuration
        self._issuers, self._fetcher = issuers, fetcher

    async def document(self, tenant: str) -> dict[str, Any]:
        """The smart-configuration. Raises 404 where there is no authorization server, 503 while it is not known."""
        if self._open:
            raise FhirError(Kind.NOT_FOUND, "this server takes requests without a token (AUTH=open)")
        discovery = self._issuers.discovery(tenant)
        given = await self._of_the_operator()
        if discovery is None and not given:
            raise FhirError(Kind.NOT_FOUND, "no authorization server is set; tokens come from `fhir-sched token`")
        try:
            found = await discovery.document() if discovery is not None else {}
        except FetchError:
            if "token_endpoint" not in given:
                raise FhirError(
                    Kind.UNAVAILABLE,
                    "the authorization server does not say yet where its endpoints are; try again soon",
                    headers=(("Retry-After", "5"),),
                ) from None
            found = {}
        issuer = discovery.issuer if discovery is not None else ""
        return {**_completed(found, issuer), **given}

    async def oauth_uris(self, tenant: str) -> tuple[tuple[str, str], ...] | None:
        """The endpoints for the CapabilityStatement, as far as they are known; None with AUTH=open."""
        if self._open:
            return None
        try:
            found = await self.document(tenant)
        except FhirError:
            return ()
        return tuple((part, found[member]) for part, member in OAUTH_URIS.items() if member in found)

    async def _of_the_operator(self) -> dict[str, Any]:
        if self._given is None:
            return {}
        try:
            return await self._fetcher.get(self._given.as_uri())
        except FetchError:
            return {}


def _completed(found: dict[str, Any], issuer: str) -> dict[str, Any]:
    """The members that SMART knows, and those that it requires."""
    told = {name: value for name, value in found.items() if name in _MEMBERS and _is_usable(name, value, issuer)}
    grants = ["authorization_code"] if "authorization_endpoint" in told else []
    told.setdefault("grant_types_supported", [*grants, "client_credentials"])
    told["code_challenge_methods_supported"] = ["S256"]
    told.setdefault("scopes_supported", list(SCOPES))
    if "capabilities" not in told:
        methods = told.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        clients = [_BY_METHOD[method] for method in methods if method in _BY_METHOD]
        told["capabilities"] = list(dict.fromkeys([*clients, *_OURS]))
    return dict(sorted(told.items()))


def _is_usable(name: str, value: Any, issuer: str) -> bool:
    """Whether a member is of the type that it must have: a URL, a list of texts, or what it is."""
    if name in OAUTH_URIS.values() or name in ("issuer", "jwks_uri"):
        return isinstance(value, str) and bool(urlsplit(value).netloc) and is_endpoint(value, issuer)
    if name.endswith("_supported") or name == "capabilities":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return True
