"""metadata, smart-configuration, and the definitions of our own (StructureDefinition …). R4 3.1.0.14, 5.4.

Made from the declarations and what the authorization server says, without the database.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from fhir_sched import bundle, capability, document, profiles
from fhir_sched.http.messages import Request, Response, only_get
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.security.smart import SmartConfiguration

_OTHERS = frozenset({"_format", "_pretty"})


PUBLIC: Final = (["metadata"], [".well-known", "smart-configuration"])
"""The paths that are served without a token."""


async def public(base: str, tenant: str, request: Request, path: list[str], smart: SmartConfiguration) -> Response:
    """The answer for one of the `PUBLIC` paths. smart-configuration is plain JSON whatever the client accepts."""
    found = only_get(request)
    if found is not None:
        return found
    if path == ["metadata"]:
        return _cached(_statement(base, await smart.oauth_uris(tenant)), request)
    body = document.dumps(await smart.document(tenant))
    return Response(200, body, [(b"cache-control", b"max-age=60")], content_type=b"application/json")


def respond(base: str, request: Request, path: list[str], *, strict: bool) -> Response | None:
    """The answer where the path is one of these; else None. Raises 404 for an unknown id, 405 for other methods."""
    match path:
        case [kind] if kind in profiles.definitions():
            return only_get(request) or _search(kind, base, request, strict=strict)
        case [kind, fhir_id] if kind in profiles.definitions():
            return only_get(request) or _read(kind, fhir_id, request)
    return None


def _read(kind: str, fhir_id: str, request: Request) -> Response:
    served = profiles.definitions()[kind]
    if fhir_id not in served:
        raise FhirError(Kind.NOT_FOUND, f"there is no {kind}/{fhir_id}; there are {', '.join(served) or 'none'}")
    return _cached(document.dumps(served[fhir_id]), request)


def _search(kind: str, base: str, request: Request, *, strict: bool) -> Response:
    """A searchset of the definitions of that type; unknown parameters by handling, as everywhere."""
    known = {param.name for param in profiles.params(kind)}
    given = [(name, value) for name, value in request.parameters if name not in _OTHERS]
    used = [(name, value) for name, value in given if name in known]
    ignored = [
        f"{kind} has no search parameter {name!r}; it was not used; it takes {', '.join(sorted(known))}"
        for name, _ in given
        if name not in known
    ]
    if ignored and strict:
        raise FhirError.of(Issue(Kind.NOT_SUPPORTED, why) for why in ignored)
    entries = [
        bundle.entry(f"{base}/{kind}/{found['id']}", document.dumps(found))
        for found in profiles.definitions()[kind].values()
        if all(_fits(found, name, value) for name, value in used)
    ]
    links = [("self", bundle.url(base, kind, used))]
    return Response(200, bundle.searchset(entries, links, len(entries), ignored))


def _fits(found: dict[str, Any], name: str, value: str) -> bool:
    return found[name.removeprefix("_")] in value.split(",")


@lru_cache(maxsize=64)
def _statement(base: str, oauth_uris: tuple[tuple[str, str], ...] | None) -> bytes:
    # The base comes from the Host header where PUBLIC_URL is not set, so only the last few are kept.
    return document.dumps(capability.statement(base, oauth_uris))


def _cached(body: bytes, request: Request) -> Response:
    """200 with the body's digest as ETag, or 304 without body where the client has it (RFC 9110 13.1.2)."""
    etag = f'W/"{blake2b(body, digest_size=8).hexdigest()}"'
    known = {each.strip() for each in request.header(b"if-none-match").split(",")}
    unchanged = bool(known & {etag, etag.removeprefix("W/"), "*"})
    return Response(304 if unchanged else 200, b"" if unchanged else body, [(b"etag", etag.encode())])
