"""Request and Response: what the routes are given and give back. Knows no route."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from fhir_sched.auditing import Trail
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.search.values import form
from fhir_sched.security.caller import Caller

Headers = dict[bytes, bytes]
Pieces = AsyncGenerator[bytes, None]
_LISTS = frozenset((b"accept", b"prefer", b"if-match", b"if-none-match"))


@dataclass(slots=True)
class Request:
    """One request: decoded path segments below `/fhir/`, headers (names in lower case), the query string as sent.

    `address` is the client's. Who asks (`caller`) and what its changes leave behind (`trail`) come to be known later.
    """

    method: str
    segments: list[str]
    headers: Headers
    query_string: bytes
    body: bytes
    root: str
    request_id: bytes = b""
    address: str = ""
    caller: Caller | None = None
    trail: Trail | None = None

    def header(self, name: bytes) -> str:
        """A header's value, "" when it is absent."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def authorization(self) -> bytes:
        """The credentials, as sent."""
        return self.headers.get(b"authorization", b"")

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The query's parameters, decoded, in order."""
        return decode_form(self.query_string)


@dataclass(slots=True)
class Response:
    """Status, headers besides the usual ones, and body: whole, or in pieces that are made while the client reads them.

    Whoever sends pieces closes them, also when the client has gone before their end.
    """

    status: int
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_type: bytes = b"application/fhir+json; charset=utf-8"
    pieces: Pieces | None = None


def by_name(sent: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Headers by name. Of a list that came in several lines all are kept (RFC 9110 5.3), of others the last."""
    headers = dict(sent)
    if len(headers) != len(sent):
        for name in _LISTS & headers.keys():
            headers[name] = b", ".join(value for key, value in sent if key == name)
    return headers


def only_get(request: Request) -> Response | None:
    """None for GET and HEAD, the answer to OPTIONS; raises 405 for any other method."""
    if request.method in ("GET", "HEAD"):
        return None
    allowed = "GET, HEAD, OPTIONS"
    if request.method == "OPTIONS":
        return Response(204, headers=[(b"allow", allowed.encode())])
    raise FhirError(
        Kind.METHOD, f"{request.method} is not possible here; this URL takes GET", headers=(("Allow", allowed),)
    )


def decode_form(encoded: bytes) -> list[tuple[str, str]]:
    """The pairs of a query string or form. Raises 400 where a percent escape is not UTF-8."""
    try:
        return form(encoded.decode("ascii"))
    except UnicodeError:
        raise FhirError(Kind.VALUE, "the parameters must be percent-encoded UTF-8") from None
