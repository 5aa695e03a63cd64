"""The ASGI application: bytes -> Request, Response -> bytes, and the one place where errors become answers.

Everything below `/fhir/` goes to the routes, the few paths beside it to the pages. Limits on sizes are applied before
anything is read. Knows no resource.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from fhir_sched import document
from fhir_sched.db.lanes import Lanes
from fhir_sched.http import negotiate
from fhir_sched.http.messages import Request, Response
from fhir_sched.http.pages import pages
from fhir_sched.http.routes import Routes
from fhir_sched.outcome import FhirError, Issue, Kind, operation_outcome
from fhir_sched.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("fhir_sched.http")

MAX_BODY = 5 * 1024 * 1024
MAX_URL = 16 * 1024
_HOST = re.compile(rb"(?:[A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9\-._~]{1,128}")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9\-, ]{1,1000}")
_EXPOSED = b"ETag, Location, Content-Location, Last-Modified, X-Request-Id, Retry-After, WWW-Authenticate"
_ALWAYS_JSON = "/.well-known/smart-configuration"
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def create_app(settings: Settings) -> App:
    """The application of one server process; its connections open with the ASGI lifespan."""
    if settings.database_url is None:
        raise ValueError("the application needs DATABASE_URL; serve gives that of the embedded PostgreSQL")
    return App(settings, Lanes(settings.database_url))


class App:
    """ASGI 3. `lanes` are the process's connections, `routes` the FHIR API."""

    def __init__(self, settings: Settings, lanes: Lanes) -> None:
        self.settings = settings
        self.lanes = lanes
        self.routes = Routes(settings, lanes)
        self.pages = pages(settings, lanes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection event of ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.lanes.open()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.routes.close()
                await self.lanes.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        response = await self._respond(scope, headers, receive)
        await _send(response, scope["method"], headers, send)

    async def _respond(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Response:
        answer_format = negotiate.JSON
        try:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return Response(204)
            page = self.pages.get(scope["path"])
            if scope["path"].startswith("/fhir/") and not scope["path"].endswith(_ALWAYS_JSON):
                answer_format = negotiate.response_format(headers, scope["query_string"])
            segments = [] if page else _segments(scope["raw_path"], scope["query_string"])
            request = Request(
                scope["method"], segments, headers, scope["query_string"], b"", self._root(scope, headers)
            )
            # Whoever may not come in is told so before the body is read.
            caller = None if page else await self.routes.admit(request)
            if scope["method"] not in ("GET", "HEAD"):
                request.body = await _body(headers, receive)
            if segments[-1:] == ["_search"] and negotiate.is_form(headers):
                answer_format = negotiate.response_format(headers, b"%b&%b" % (scope["query_string"], request.body))
            return answer_format.applied(await (page(request) if page else self.routes.handle(request, caller)))
        except FhirError as error:
            return answer_format.applied(_refusal(error))
        except Exception:
            log.exception("request failed: %s", scope["method"])
            return answer_format.applied(
                _refusal(FhirError(Kind.EXCEPTION, "The server failed; the failure has been logged."))
            )

    def _root(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """What stands before /fhir in our links: PUBLIC_URL, or the host that the request names."""
        if self.settings.public_url:
            return self.settings.public_url
        host = headers.get(b"host", b"")
        if _HOST.fullmatch(host):
            return f"{scope['scheme']}://{host.decode('ascii')}"
        server = scope.get("server") or ("127.0.0.1", self.settings.port)
        return f"{scope['scheme']}://{server[0]}:{server[1]}"


def _segments(raw: bytes, query: bytes) -> list[str]:
    """The path below /fhir/, split before it is decoded, so that an escaped slash stays inside its segment.

    Raises 414 for a URL that is too long, 404 for a path that is not below /fhir/.
    """
    if len(raw) + len(query) > MAX_URL:
        raise FhirError(Kind.URI_TOO_LONG, f"a URL may have {MAX_URL} bytes; use POST _search for a long search")
    if not raw.startswith(b"/fhir/"):
        raise FhirError(Kind.NO_SUCH_ROUTE, "there is nothing here; the FHIR API is at /fhir/<tenant's UUID>/")
    try:
        return [unquote(part.decode("ascii"), errors="strict") for part in raw[6:].rstrip(b"/").split(b"/")]
    except UnicodeError:
        raise FhirError(Kind.VALUE, "the URL must be percent-encoded UTF-8") from None


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The whole body. Raises 413 as soon as it is known to be too long."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > MAX_BODY:
        raise _too_long()
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > MAX_BODY:
            raise _too_long()
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise FhirError(Kind.INVALID, "the body was cut off")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise _too_long()
    return b"".join(parts)


def _too_long() -> FhirError:
    return FhirError(Kind.TOO_LONG, f"a body may have {MAX_BODY} bytes", headers=(("Connection", "close"),))


def _refusal(error: FhirError) -> Response:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers]
    issues = error.issues
    if len(issues) > 50:
        issues = (*issues[:50], Issue(issues[0].kind, f"and {len(issues) - 50} more", severity="information"))
    return Response(error.status, document.dumps(operation_outcome(issues)), headers)


async def _send(response: Response, method: str, headers: dict[bytes, bytes], send: Send) -> None:
    listed = response.headers
    if response.body or response.status not in (204, 304):
        listed.append((b"content-type", response.content_type))
        listed.append((b"content-length", str(len(response.body)).encode()))
    request_id = headers.get(b"x-request-id")
    if request_id is not None and _REQUEST_ID.fullmatch(request_id):
        listed.append((b"x-request-id", request_id))
    listed.append((b"vary", b"Accept, Prefer"))
    if b"origin" in headers:
        listed += _cors(headers)
    await send({"type": "http.response.start", "status": response.status, "headers": listed})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})


def _cors(headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Any origin may call (tokens, no cookies)."""
    allowed = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
    if b"access-control-request-method" in headers:
        wanted = headers.get(b"access-control-request-headers", b"")
        allowed += [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", b"86400")]
        if _HEADER_NAMES.fullmatch(wanted):
            allowed.append((b"access-control-allow-headers", wanted))
    return allowed
