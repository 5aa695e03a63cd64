"""The Authorization header of a request -> its Caller. RFC 6750 (bearer tokens), RFC 9068, SMART App Launch 2.2.

A token is verified once and remembered, by its hash, until it expires or its key is withdrawn; whoever sends it again
costs a look into a table. Everything that is wrong with a token is 401, a token of another tenant 403 without a word
more, an authorization server that does not answer 503. Knows no scope and no route.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NoReturn

from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from fhir_sched import document
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.security import claims as rules
from fhir_sched.security.caller import OPEN, Caller
from fhir_sched.security.claims import ClaimError
from fhir_sched.security.fetching import Fetcher, FetchError
from fhir_sched.security.introspection import Introspection
from fhir_sched.security.issuers import Issuer, Issuers
from fhir_sched.security.jwks import ALGORITHMS, IssuerKeys, TrustedKey
from fhir_sched.settings import Auth, Settings

MAX_TOKEN: Final = 8192
MAX_REMEMBERED: Final = 10_000
RETRY_S: Final = 5
_TOKEN: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_KID: Final = 512


class _Registry(JWSRegistry):
    """The signatures that are accepted; headers that say nothing about the signature do not matter."""

    max_header_length = MAX_TOKEN

    def __init__(self) -> None:
        super().__init__(algorithms=ALGORITHMS, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        """The algorithm; the library's own look-up would warn of EdDSA's old name at each token."""
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError("not allowed")
        return self.algorithms[name]


_REGISTRY: Final = _Registry()


@dataclass(slots=True, eq=False)
class _Remembered:
    """A token that was found good: whose it is, where it counts and until when (Unix seconds).

    `audiences` is None where the authorization server has answered for this server alone.
    """

    caller: Caller
    tenant: str
    audiences: frozenset[str] | None
    until: float
    issuer: str
    key: TrustedKey | None = None
    keys: IssuerKeys | None = None


class Authenticator:
    """Who makes a request, by the settings of the server; one for a process. `now` gives Unix seconds."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        self._open = settings.auth is Auth.OPEN
        self._audience = (settings.audience or "").rstrip("/")
        self._tenant_claim = settings.tenant_claim
        self._needs_user = settings.require_fhir_user
        self._now = now
        self.fetcher = Fetcher()
        self.issuers = Issuers(settings, self.fetcher)
        self._introspection = Introspection(settings, self.fetcher) if settings.introspection_url else None
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[_Remembered]] = {}

    async def authenticate(self, authorization: bytes, tenant: str, audience_base: str) -> Caller:
        """The Caller. `tenant` is the UUID in the URL, `audience_base` the tenant's FHIR base, "" where only what the
        client says tells it.

        Raises FhirError 401, 403 (a token of another tenant) or 503.
        """
        if self._open:
            return OPEN
        now = self._now()
        digest = sha256(authorization).digest() if len(authorization) <= MAX_TOKEN else b""
        known = self._remembered.get(digest)
        if known is None or known.until <= now or (known.key is not None and known.key.retired):
            challenge = _Challenge(audience_base)
            known = await self._verified(_bearer(authorization, challenge), digest, now, challenge)
        self._remembered.move_to_end(digest)
        if known.keys is not None:
            known.keys.renew_when_old()
        if known.tenant != tenant or not self.issuers.speaks_for(known.issuer, tenant):
            raise _Challenge(audience_base).forbidden()
        expected = self._audience or audience_base
        if known.audiences is not None and not (expected and expected in known.audiences):
            _Challenge(audience_base).refuse("the token is not for this server")
        return known.caller

    async def close(self) -> None:
        """End what is under way and let go of connections."""
        for task in self._asked.values():
            task.cancel()
        await self.issuers.close()
        await self.fetcher.close()

    async def _verified(self, token: bytes, digest: bytes, now: float, challenge: _Challenge) -> _Remembered:
        try:
            # Many requests with one token come at once when it has just been issued or has to be asked about again.
            task = self._asked.get(digest)
            if task is None:
                task = self._asked[digest] = asyncio.create_task(self._found(token, now))
                task.add_done_callback(lambda done: self._end(digest, done))
            found = await asyncio.shield(task)
        except ClaimError as error:
            self._remembered.pop(digest, None)
            challenge.refuse(str(error))
        except FetchError:
            raise FhirError(
                Kind.UNAVAILABLE,
                "the authorization server can't be reached, so the token can't be checked; try again soon",
                headers=(("Retry-After", str(RETRY_S)),),
            ) from None
        self._remembered[digest] = found
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    def _end(self, digest: bytes, task: asyncio.Task[_Remembered]) -> None:
        del self._asked[digest]
        if not task.cancelled():
            task.exception()  # whoever waited has been told; without anybody it is no news

    async def _found(self, token: bytes, now: float) -> _Remembered:
        """The token, checked in every respect that does not depend on the request."""
        if self._introspection is not None and not self._is_ours(token):
            claims, named, until = await self._introspection.ask(token.decode("ascii"), now)
            return self._remember(claims, named, rules.audiences(claims) if "aud" in claims else None, until)
        header, claims = _decoded(token)
        algorithm, kid = _signature_of(header)
        issuer = self._issuer(claims)
        key = await self._signing_key(token, issuer, kid, algorithm)
        rules.require_access_token(claims, header)
        until = rules.expiry(claims, now)
        found = self._remember(claims, issuer.url, rules.audiences(claims), until)
        found.key, found.keys = key, issuer.keys
        return found

    def _remember(
        self, claims: dict[str, Any], issuer: str, audiences: frozenset[str] | None, until: float
    ) -> _Remembered:
        tenant = claims.get(self._tenant_claim)
        caller = rules.caller(claims, issuer, needs_user=self._needs_user)
        return _Remembered(caller, tenant.lower() if isinstance(tenant, str) else "", audiences, until, issuer)

    def _issuer(self, claims: dict[str, Any]) -> Issuer:
        """The issuer that the token names, if it is trusted; nothing is fetched before."""
        named = claims.get("iss")
        issuer = self.issuers.by_url.get(named.rstrip("/")) if isinstance(named, str) else None
        if issuer is None:
            raise ClaimError("the issuer is not trusted here")
        return issuer

    def _is_ours(self, token: bytes) -> bool:
        """Whether the token claims to be signed by the development key, if that is trusted at all."""
        if not self.issuers.development or not _COMPACT.fullmatch(token):
            return False
        try:
            return self._issuer(_decoded(token)[1]).url == self.issuers.development
        except ClaimError:
            return False

    async def _signing_key(self, token: bytes, issuer: Issuer, kid: str | None, algorithm: str) -> TrustedKey:
        for key in await issuer.keys.fitting(kid, algorithm):
            try:
                jws.deserialize_compact(token, key.key, registry=_REGISTRY)
            except (JoseError, ValueError):
                continue
            return key
        raise ClaimError("the signature is not one of the issuer's")


class _Challenge:
    """How a refusal is said: `WWW-Authenticate` and an OperationOutcome."""

    def __init__(self, realm: str) -> None:
        self.realm = realm or "fhir-sched"

    def refuse(self, why: str) -> NoReturn:
        """401 for a token that is not good."""
        raise FhirError(
            Kind.LOGIN,
            why,
            headers=(
                ("WWW-Authenticate", f'Bearer realm="{self.realm}", error="invalid_token", error_description="{why}"'),
            ),
        )

    def ask(self, why: str) -> NoReturn:
        """401 for a request without a token (RFC 6750 3: no error is named then)."""
        raise FhirError(Kind.LOGIN, why, headers=(("WWW-Authenticate", f'Bearer realm="{self.realm}"'),))

    def forbidden(self) -> FhirError:
        """403 for a token that does not reach this tenant."""
        said = f'Bearer realm="{self.realm}", error="insufficient_scope"'
        return FhirError(Kind.FORBIDDEN, "the token does not reach so far", headers=(("WWW-Authenticate", said),))


def _bearer(authorization: bytes, challenge: _Challenge) -> bytes:
    """The token of the header. Raises 401."""
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        challenge.ask("a bearer token is needed; .well-known/smart-configuration says where to get one")
    token = token.strip(b" ")
    if len(authorization) > MAX_TOKEN:
        challenge.refuse(f"a token may have {MAX_TOKEN} bytes, its scheme included")
    if not _TOKEN.fullmatch(token):
        challenge.refuse("the token is malformed")
    return token


def _decoded(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT, not yet to be believed."""
    if not _COMPACT.fullmatch(token):
        raise ClaimError("the token is malformed")
    header, claims, _ = token.split(b".")
    try:
        return document.parse(urlsafe_b64decode(header)), document.parse(urlsafe_b64decode(claims))
    except (FhirError, ValueError):
        raise ClaimError("the token is malformed") from None


def _signature_of(header: dict[str, Any]) -> tuple[str, str | None]:
    """Algorithm and key id of a JOSE header."""
    if "crit" in header or "b64" in header:
        raise ClaimError("the token demands an extension that is not known here")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise ClaimError("the signature's algorithm is not accepted")
    if kid is not None and (not isinstance(kid, str) or len(kid) > _MAX_KID):
        raise ClaimError("kid is no text")
    return algorithm, kid
