"""The public keys of one issuer. RFC 7517 (JWK sets), RFC 7518 (which key fits which algorithm).

A key that is no longer in the set is retired, and with it every token that was remembered by it. Symmetric and unusable
keys are left out. Knows no token.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from fhir_sched.security.fetching import FetchError
from fhir_sched.security.kept import Attempts, Kept

RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),
}
ALGORITHMS: Final = RSA_ALGORITHMS.union(*_BY_CURVE.values())
"""The signatures that are accepted; never `none`, never one by a shared secret."""

MIN_RSA_BITS: Final = 2048
MAX_KEYS: Final = 100
_PUBLIC: Final = ("kty", "kid", "n", "e", "crv", "x", "y")

FRESH_S: Final = 600.0
UNKNOWN_KEY_PAUSE_S: Final = 30.0
FILE_FRESH_S: Final = 5.0


@dataclass(slots=True, eq=False)
class TrustedKey:
    """A public key and the algorithms it may be used with; `retired` once the issuer has withdrawn it."""

    key: Key
    kid: str | None
    algorithms: frozenset[str]
    retired: bool = False


class IssuerKeys:
    """The keys of one issuer, fetched by `load`, which gives a JWK set and raises FetchError.

    `local` for a file, which costs little to read again.
    """

    def __init__(
        self,
        issuer: str,
        load: Callable[[], Awaitable[dict[str, Any]]],
        *,
        local: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self.local = load, local
        self._by_thumbprint: dict[str, TrustedKey] = {}
        fresh_s, pause_s = (FILE_FRESH_S, 1.0) if local else (FRESH_S, UNKNOWN_KEY_PAUSE_S)
        self._kept = Kept(f"the keys of {issuer}", self._load, fresh_s=fresh_s, pause_s=pause_s, clock=clock)

    async def fitting(self, kid: str | None, algorithm: str) -> list[TrustedKey]:
        """The keys that may have signed; none where the issuer has no such key. Raises FetchError without any keys."""
        found = _fitting(await self._kept.current(), kid, algorithm)
        return found or _fitting(await self._kept.renewed(), kid, algorithm)

    async def check(self) -> None:
        """Fetch the keys now. Raises FetchError where there are none that can be used."""
        if not await self._load():
            raise FetchError("it holds no key that can be used")

    def renew_when_old(self) -> None:
        """Start to fetch keys that are not fresh, without waiting."""
        self._kept.renew_when_old()

    @property
    def held(self) -> int:
        """How many keys are known at this moment."""
        return len(self._by_thumbprint)

    @property
    def attempts(self) -> Attempts:
        """How fetching them went so far."""
        return self._kept.attempts

    async def close(self) -> None:
        """End what is under way."""
        await self._kept.close()

    async def _load(self) -> list[TrustedKey]:
        listed = (await self._fetch()).get("keys")
        if not isinstance(listed, list):
            raise FetchError("no JWK set")
        found = {thumbprint: key for each in listed[:MAX_KEYS] for thumbprint, key in _imported(each)}
        for thumbprint, known in self._by_thumbprint.items():
            now = found.get(thumbprint)
            if now is None or now.algorithms != known.algorithms:
                known.retired = True
            else:
                known.kid, found[thumbprint] = now.kid, known
        self._by_thumbprint = found
        return list(found.values())


def _fitting(keys: list[TrustedKey], kid: str | None, algorithm: str) -> list[TrustedKey]:
    """By `kid`; a token without one is for an issuer with a single key of that kind."""
    usable = [key for key in keys if algorithm in key.algorithms]
    if kid is None:
        return usable if len(usable) == 1 else []
    return [key for key in usable if key.kid == kid]


def _imported(given: Any) -> list[tuple[str, TrustedKey]]:
    """The thumbprint and key of one member of a set; nothing for what verifies no signature of ours."""
    if not isinstance(given, dict) or given.get("use", "sig") != "sig" or "verify" not in _operations(given):
        return []
    kid = given.get("kid")
    try:
        # Whatever else is there, a private part included, is of no use here.
        key = JWKRegistry.import_key({name: given[name] for name in _PUBLIC if isinstance(given.get(name), str)})
        algorithms = _algorithms(key)
        thumbprint = key.thumbprint()
    except (JoseError, ValueError, KeyError, TypeError):
        return []
    if "alg" in given:
        algorithms &= {given["alg"]} if isinstance(given["alg"], str) else set()
    return [(thumbprint, TrustedKey(key, kid if isinstance(kid, str) else None, algorithms))] if algorithms else []


def _operations(given: dict[str, Any]) -> list[Any]:
    """What the key is for; a private key, as in our own file of a development key, verifies as well."""
    operations = given.get("key_ops", ["verify"])
    if not isinstance(operations, list):
        return []
    return ["verify"] if "sign" in operations else operations


def _algorithms(key: Key) -> frozenset[str]:
    match key:
        case RSAKey() if key.public_key.key_size >= MIN_RSA_BITS:
            return RSA_ALGORITHMS
        case ECKey() | OKPKey():
            return _BY_CURVE.get(str(key.get("crv")), frozenset())
        case _:
            return frozenset()
