"""metadata and smart-configuration, which are served without a token. R4 3.1.0.14, SMART App Launch 2.2.

Made from the declarations and what the authorization server says, without the database.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from fhir_sched import capability, document
from fhir_sched.http.messages import Request, Response, only_get
from fhir_sched.security.smart import SmartConfiguration
from fhir_sched.subset import part

PUBLIC: Final = (["metadata"], [".well-known", "smart-configuration"])
"""The paths that are served without a token."""


async def public(base: str, tenant: str, request: Request, path: list[str], smart: SmartConfiguration) -> Response:
    """The answer for one of the `PUBLIC` paths. smart-configuration is plain JSON whatever the client accepts."""
    found = only_get(request)
    if found is not None:
        return found
    if path == ["metadata"]:
        return cached(part(request.parameters).of(_statement(base, await smart.oauth_uris(tenant))), request)
    body = document.dumps(await smart.document(tenant))
    return Response(200, body, [(b"cache-control", b"max-age=60")], content_type=b"application/json")


@lru_cache(maxsize=64)
def _statement(base: str, oauth_uris: tuple[tuple[str, str], ...] | None) -> bytes:
    # The base comes from the Host header where PUBLIC_URL is not set, so only the last few are kept.
    return document.dumps(capability.statement(base, oauth_uris))


def cached(body: bytes, request: Request) -> Response:
    """200 with the body's digest as ETag, or 304 without body where the client has it (RFC 9110 13.1.2)."""
    etag = f'W/"{blake2b(body, digest_size=8).hexdigest()}"'
    known = {each.strip() for each in request.header(b"if-none-match").split(",")}
    unchanged = bool(known & {etag, etag.removeprefix("W/"), "*"})
    return Response(304 if unchanged else 200, b"" if unchanged else body, [(b"etag", etag.encode())])
