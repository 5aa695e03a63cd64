"""A Response -> the messages of ASGI, with the headers that every answer has: security, caching, CORS, request id.

Laws: what can hold a patient's data is stored by nobody; any web page may call with a token (no cookies), unless the
operator names the origins. Fetch standard (CORS), RFC 9111, RFC 6797. Knows no route.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from fhir_sched.http.messages import Response

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_HEADER_NAMES: Final = re.compile(rb"[A-Za-z0-9\-, ]{1,1000}")
_EXPOSED: Final = b"ETag, Location, Content-Location, Last-Modified, X-Request-Id, Retry-After, WWW-Authenticate"
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
_YEAR_S: Final = 365 * 24 * 3600


class Sending:
    """How this server answers; `origins` may call from a web page, all when there are none."""

    def __init__(self, public_url: str | None, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)
        self._vary = b"Accept, Prefer, Origin" if origins else b"Accept, Prefer"
        self._always = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        if (public_url or "").startswith("https://"):
            self._always.append((b"strict-transport-security", b"max-age=%d" % _YEAR_S))

    async def __call__(
        self,
        response: Response,
        method: str,
        headers: dict[bytes, bytes],
        send: Send,
        *,
        request_id: bytes,
        last: bool = False,
    ) -> None:
        """Send it whole; `last` says that the connection ends with it."""
        listed = self._headers(response, headers, request_id, last=last)
        await send({"type": "http.response.start", "status": response.status, "headers": listed})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})

    def whole(
        self, response: Response, method: str, headers: dict[bytes, bytes], *, request_id: bytes, last: bool
    ) -> tuple[bytes, bytes]:
        """The same as status line and headers of HTTP/1.1, without the empty line that ends them, and body."""
        listed = self._headers(response, headers, request_id, last=last)
        lines = [b"%b: %b\r\n" % (name, value) for name, value in listed if b"\n" not in value and b"\r" not in value]
        return _STATUS[response.status] + b"".join(lines), b"" if method == "HEAD" else response.body

    def _headers(
        self, response: Response, headers: dict[bytes, bytes], request_id: bytes, *, last: bool
    ) -> list[tuple[bytes, bytes]]:
        listed = response.headers
        if response.body or response.status not in (204, 304):
            listed.append((b"content-type", response.content_type))
            listed.append((b"content-length", b"%d" % len(response.body)))
        if not any(name == b"cache-control" for name, _ in listed):
            listed.append((b"cache-control", b"no-store"))
        listed.append((b"x-request-id", request_id))
        listed.append((b"vary", self._vary))
        listed += self._always
        if last:
            listed.append((b"connection", b"close"))
        if b"origin" in headers:
            listed += self._cors(headers)
        return listed

    def _cors(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        origin = headers[b"origin"]
        if self._origins and origin not in self._origins:
            return []
        allowed = [
            (b"access-control-allow-origin", origin if self._origins else b"*"),
            (b"access-control-expose-headers", _EXPOSED),
        ]
        if b"access-control-request-method" in headers:
            wanted = headers.get(b"access-control-request-headers", b"")
            allowed += [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", b"86400")]
            if _HEADER_NAMES.fullmatch(wanted):
                allowed.append((b"access-control-allow-headers", wanted))
        return allowed
