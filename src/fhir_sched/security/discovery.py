"""What an authorization server says of itself. OpenID Connect Discovery, RFC 8414, SMART App Launch 2.2.

Its documents are read as one; where they differ, SMART's own counts. A document that names another issuer is none of
that issuer's (RFC 8414 3.3). Knows no key and no token.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import urlsplit

from fhir_sched.security.fetching import Fetcher, FetchError
from fhir_sched.security.kept import Kept

FRESH_S: Final = 600.0
PAUSE_S: Final = 30.0


class Discovery:
    """The document of one issuer, fetched when it is first asked for."""

    def __init__(self, issuer: str, fetcher: Fetcher) -> None:
        self.issuer = issuer
        self._fetcher = fetcher
        self._kept = Kept(f"the discovery document of {issuer}", self._load, fresh_s=FRESH_S, pause_s=PAUSE_S)

    async def document(self) -> dict[str, Any]:
        """All members that the issuer publishes. Raises FetchError while there has never been a document."""
        return await self._kept.current()

    async def keys(self) -> dict[str, Any]:
        """The JWK set that the document names. Raises FetchError."""
        url = (await self.document()).get("jwks_uri")
        if not isinstance(url, str) or not is_endpoint(url, self.issuer):
            raise FetchError("the discovery document names no jwks_uri")
        return await self._fetcher.get(url)

    async def close(self) -> None:
        """End what is under way."""
        await self._kept.close()

    async def _load(self) -> dict[str, Any]:
        answers = await asyncio.gather(
            *(self._fetcher.get(url) for url in _places(self.issuer)), return_exceptions=True
        )
        found: dict[str, Any] = {}
        reasons = []
        for answer in answers:
            if isinstance(answer, FetchError):
                reasons.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            elif str(answer.get("issuer", self.issuer)).rstrip("/") != self.issuer:
                reasons.append("the document is another issuer's")
            else:
                found |= answer
        if not found:
            raise FetchError(", ".join(dict.fromkeys(reasons)))
        return found


def is_endpoint(url: str, issuer: str) -> bool:
    """Whether a URL that the issuer names may be used: https, or http where the issuer itself is at http."""
    parts = urlsplit(url)
    return bool(parts.netloc) and parts.scheme in ("https", urlsplit(issuer).scheme)


def _places(issuer: str) -> list[str]:
    """Where the documents are, the one that counts most at the end."""
    parts = urlsplit(issuer)
    return [
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}",
        f"{issuer}/.well-known/openid-configuration",
        f"{issuer}/.well-known/smart-configuration",
    ]
