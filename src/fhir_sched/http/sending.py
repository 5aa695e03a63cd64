"""A Response -> the messages of ASGI, with the headers that every answer has: security, caching, CORS, request id.

Laws: what can hold a patient's data is stored by nobody; any web page may call with a token (no cookies), unless the
operator names the origins. Fetch standard (CORS), RFC 9111, RFC 6797. Knows no route.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final

from fhir_sched.http.messages import Pieces, Response

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_HEADER_NAMES: Final = re.compile(rb"[A-Za-z0-9\-, ]{1,1000}")
_EXPOSED: Final = b"ETag, Location, Content-Location, Last-Modified, X-Request-Id, Retry-After, WWW-Authenticate"
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
# A line break within a header would begin another one; those are looked for in all lines together.
_LINES: Final = [b"%b: %b\r\n" * number for number in range(64)]
_YEAR_S: Final = 365 * 24 * 3600


class Sending:
    """How this server answers; `origins` may call from a web page, all when there are none."""

    def __init__(self, public_url: str | None, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)
        self._always = [
            (b"vary", b"Accept, Prefer, Origin" if origins else b"Accept, Prefer"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        if (public_url or "").startswith("https://"):
            self._always.append((b"strict-transport-security", b"max-age=%d" % _YEAR_S))
        self._always_lines = _lines(self._always)

    async def __call__(
        self,
        response: Response,
        method: str,
        headers: dict[bytes, bytes],
        send: Send,
        receive: Receive,
        *,
        request_id: bytes,
        last: bool = False,
    ) -> None:
        """Send it, in pieces for as long as the client is there; `last` says that the connection ends with it."""
        listed = self._headers(response, headers, request_id, last=last)
        await send({"type": "http.response.start", "status": response.status, "headers": listed + self._always})
        if response.pieces is not None and method != "HEAD":
            await _send_pieces(response.pieces, send, receive)
            return
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})

    def whole(
        self, response: Response, method: str, headers: dict[bytes, bytes], *, request_id: bytes, last: bool
    ) -> tuple[bytes, bytes | Pieces]:
        """The same as status line and headers of HTTP/1.1, without the empty line that ends them, and body or pieces,
        which the headers say to be chunks."""
        listed = self._headers(response, headers, request_id, last=last)
        pieces = response.pieces if method != "HEAD" else None
        if pieces is not None:
            listed.append((b"transfer-encoding", b"chunked"))
        head = b"%b%b%b" % (_STATUS[response.status], _lines(listed), self._always_lines)
        return head, pieces or (b"" if method == "HEAD" else response.body)

    def _headers(
        self, response: Response, headers: dict[bytes, bytes], request_id: bytes, *, last: bool
    ) -> list[tuple[bytes, bytes]]:
        """All but what every answer has."""
        listed = response.headers
        if response.body or response.status not in (204, 304):
            listed.append((b"content-type", response.content_type))
            if response.pieces is None:
                listed.append((b"content-length", b"%d" % len(response.body)))
        if b"cache-control" not in [name for name, _ in listed]:
            listed.append((b"cache-control", b"no-store"))
        listed.append((b"x-request-id", request_id))
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


def _lines(listed: list[tuple[bytes, bytes]]) -> bytes:
    """The headers as HTTP/1.1 has them, without any whose value would begin another one."""
    lines = _LINES[len(listed)] % tuple([part for header in listed for part in header])
    if lines.count(b"\n") != len(listed) or lines.count(b"\r") != len(listed):
        kept = [b"%b: %b\r\n" % header for header in listed if b"\n" not in header[1] and b"\r" not in header[1]]
        return b"".join(kept)
    return lines


async def _send_pieces(pieces: Pieces, send: Send, receive: Receive) -> None:
    gone = asyncio.ensure_future(_gone(receive))
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
