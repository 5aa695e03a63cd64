"""The ASGI application: bytes -> Request, Response -> bytes, and the one place where errors become answers.

Everything below `/fhir/` goes to the routes, the few paths beside it to the pages. Limits on sizes are applied before
anything is read, and a request is admitted before anybody asks who sent it. Knows no resource.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from fhir_sched import document
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.replica import Replica
from fhir_sched.events import setup as events
from fhir_sched.events.relay import Relay
from fhir_sched.events.tally import Tally
from fhir_sched.http import accounting, backlog, negotiate, publishing
from fhir_sched.http.admission import Gate
from fhir_sched.http.messages import Pieces, Request, Response, by_name
from fhir_sched.http.metrics import Metrics
from fhir_sched.http.naming import Place, placed
from fhir_sched.http.observing import Observer
from fhir_sched.http.pages import pages
from fhir_sched.http.routes import Routes
from fhir_sched.http.sending import Receive, Send, Sending
from fhir_sched.interactions.lapsing import keep_lapsing
from fhir_sched.interactions.offering import Offering
from fhir_sched.journal import Journal
from fhir_sched.logs import Sink
from fhir_sched.outcome import FhirError, Issue, Kind, operation_outcome
from fhir_sched.settings import Settings
from fhir_sched.subscriptions import setup as subscriptions
from fhir_sched.subscriptions.tally import Heard

Scope = MutableMapping[str, Any]

log = logging.getLogger("fhir_sched.http")

MAX_BODY = 5 * 1024 * 1024
MAX_URL = 16 * 1024
_HOST = re.compile(rb"(?:[A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_ALWAYS_JSON = "/.well-known/smart-configuration"
_LARGE = 256 * 1024
_SAMPLE_S = 1.0
_BELOW_TENANT = len("/fhir/") + 37


def create_app(settings: Settings, sink: Sink | None = None) -> App:
    """The application of one server process; its connections open with the ASGI lifespan. `sink` takes access lines."""
    if settings.database_url is None:
        raise ValueError("the application needs DATABASE_URL; serve gives that of the embedded PostgreSQL")
    lanes = Lanes(settings.database_url)
    return App(settings, lanes, sink, Replica(settings.replica_url, lanes) if settings.replica_url else None)


class App:
    """ASGI 3. `lanes` are the process's connections, `routes` the FHIR API, `gate` decides who may come in."""

    def __init__(
        self, settings: Settings, lanes: Lanes, sink: Sink | None = None, replica: Replica | None = None
    ) -> None:
        self.settings = settings
        self.lanes, self.replica = lanes, replica
        self.journal = Journal(lanes) if settings.audit else None
        self.routes = Routes(settings, lanes, self.journal, replica)
        self.gate = Gate()
        keys = {url: issuer.keys for url, issuer in self.routes.authenticator.issuers.by_url.items()}
        self._tally = tally = Tally()
        self._heard = heard = Heard()
        told = subscriptions.build(settings, tally=heard) if settings.relay else None
        fanout = told.fanout if told else None
        self.delivery = told.delivery if told else None
        self.relay: Relay | None = events.build(settings, fanout=fanout, tally=tally) if settings.relay else None
        self.offering = Offering(lanes, settings.offer_seconds)
        dropped = (lambda: sink.dropped) if sink else (lambda: 0)
        metrics = Metrics(self.gate, lanes.measured, dropped, keys, (tally, heard), self.journal, replica)
        self.observer = Observer(metrics, sink)
        self.sending = Sending(settings.public_url, settings.cors_origins)
        self.pages = pages(settings, lanes, self.gate, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection event of ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        beside: list[asyncio.Task[None]] = []
        offering: asyncio.Task[None] | None = None
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.lanes.open()
                if self.replica is not None:
                    self.replica.start()
                if self.journal is not None:
                    self.journal.start()
                # for the protocol, which refuses before a request has come so far as to be one
                scope.get("state", {}).update(gate=self.gate, observer=self.observer, direct=self.direct)
                beside.append(asyncio.create_task(self._measure()))
                offering = asyncio.create_task(self.offering.run())
                if self.relay is not None:
                    await self.relay.open()
                    beside.append(asyncio.create_task(self.relay.run()))
                if self.delivery is not None:
                    beside.append(asyncio.create_task(self.delivery.run()))
                await send({"type": "lifespan.startup.complete"})
            else:
                if offering is not None:
                    offering.cancel()
                await self._end(beside)
                await self.routes.close()
                if self.journal is not None:
                    await self.journal.close()
                if self.replica is not None:
                    await self.replica.close()
                await self.lanes.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """End what runs beside the requests: what is being sent is finished; the first, which counts, is cancelled."""
        for measuring in tasks[:1]:
            measuring.cancel()
        if self.relay is not None:
            self.relay.stop()
        if self.delivery is not None:
            self.delivery.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _measure(self) -> None:
        """Look up for the metrics what no request tells of, and let holds lapse whose time is over."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample())
            tasks.create_task(keep_lapsing(self.lanes))
            if self.relay is None:
                tasks.create_task(backlog.watch(self.lanes, self._tally, self._heard))

    async def _sample(self) -> None:
        """Keep the metrics current that other processes show for this one."""
        while True:
            self.observer.metrics.sample()
            await asyncio.sleep(_SAMPLE_S)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = by_name(scope["headers"])
        request_id = self.observer.request_id(headers.get(b"x-request-id"))
        response = await self._respond(scope, headers, receive, request_id)
        last = self.gate.draining
        await self.sending(response, scope["method"], headers, send, receive, request_id=request_id, last=last)
        self.observer.finished(request_id, placed(scope["raw_path"]), scope["method"], response.status, started)

    async def direct(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[bytes, bytes | Pieces, bool]:
        """The answer to a request without body: the bytes of its head and body, and whether the connection ends then.

        The same as `_http` without ASGI's messages in between, which cost more than a read itself.
        """
        started = time.perf_counter()
        request_id = self.observer.request_id(headers.get(b"x-request-id"))
        response = await self._respond(scope, headers, _no_body, request_id)
        last = self.gate.draining
        head, body = self.sending.whole(response, scope["method"], headers, request_id=request_id, last=last)
        self.observer.finished(request_id, placed(scope["raw_path"]), scope["method"], response.status, started)
        return head, body, last

    async def _respond(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, request_id: bytes
    ) -> Response:
        answer_format = negotiate.JSON
        request = Request(scope["method"], [], headers, scope["query_string"], b"", "", request_id, _client(scope))
        place = placed(scope["raw_path"])
        key = place.tenant
        try:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return Response(204)
            page = self.pages.get(scope["path"])
            if _is_negotiated(scope["path"]):
                answer_format = negotiate.response_format(headers, scope["query_string"])
            request.root = self._root(scope, headers)
            request.segments = segments = [] if page else _segments(scope["raw_path"], scope["query_string"])
            if page is not None:
                return answer_format.applied(await page(request))
            if scope["method"] in ("GET", "HEAD"):
                if not self.gate.begins(key):
                    await self.gate.enter(key)
                try:
                    response = await self.routes.handle(request, await self.routes.admit(request))
                finally:
                    self.gate.leave(key)
                return answer_format.applied(self._noted(place, request, response))
            # Whoever may not come in is told so before the body is read, and a slow body holds no place.
            async with self.gate.place(key):
                caller = await self.routes.admit(request)
            request.body = await _body(headers, receive, self.gate)
            if segments[-1:] == ["_search"] and negotiate.is_form(headers):
                answer_format = negotiate.response_format(headers, b"%b&%b" % (scope["query_string"], request.body))
            async with self.gate.place(key):
                response = await self.routes.handle(request, caller)
            return answer_format.applied(self._noted(place, request, response))
        except FhirError as error:
            return answer_format.applied(self._noted(place, request, _refusal(error), scope["raw_path"]))
        except Exception:
            log.exception("request failed", extra={"fields": {"request_id": request_id.decode("ascii")}})
            failed = _refusal(FhirError(Kind.EXCEPTION, "The server failed; the failure has been logged."))
            return answer_format.applied(self._noted(place, request, failed, scope["raw_path"]))

    def _noted(self, place: Place, request: Request, response: Response, raw_path: bytes = b"") -> Response:
        """The same response, once its event is noted; what names no tenant is nobody's to read about."""
        if self.journal is not None and place.tenant:
            # without segments it was refused before its path was read
            request.segments = request.segments or ["", *raw_path[_BELOW_TENANT:].decode("latin-1").split("/")[:4]]
            accounting.note(self.journal, place.tenant, request, response)
        return response

    def _root(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """What stands before /fhir in our links: PUBLIC_URL, or the host that the request names."""
        if self.settings.public_url:
            return self.settings.public_url
        named = _named(scope["scheme"], headers.get(b"host", b""))
        if named:
            return named
        server = scope.get("server") or ("127.0.0.1", self.settings.port)
        return f"{scope['scheme']}://{server[0]}:{server[1]}"


@lru_cache(maxsize=256)
def _named(scheme: str, host: bytes) -> str:
    """The URL of a host that a request names, "" where it is none."""
    return f"{scheme}://{host.decode('ascii')}" if _HOST.fullmatch(host) else ""


def _is_negotiated(path: str) -> bool:
    """Whether the format of the answer is the client's choice; a path may be decoded or not."""
    if not path.startswith("/fhir/") or path.endswith(_ALWAYS_JSON):
        return False
    return f"/{publishing.WORD}" not in path.replace("%24", "$")


def _client(scope: Scope) -> str:
    """The address that the connection comes from."""
    client = scope.get("client")
    return client[0] if client else ""


def _segments(raw: bytes, query: bytes) -> list[str]:
    """The path below /fhir/, split before it is decoded, so that an escaped slash stays inside its segment.

    Raises 414 for a URL that is too long, 404 for a path that is not below /fhir/.
    """
    if len(raw) + len(query) > MAX_URL:
        raise FhirError(Kind.URI_TOO_LONG, f"a URL may have {MAX_URL} bytes; use POST _search for a long search")
    if not raw.startswith(b"/fhir/"):
        raise FhirError(Kind.NO_SUCH_ROUTE, "there is nothing here; the FHIR API is at /fhir/<tenant's UUID>/")
    try:
        parts = raw[6:].rstrip(b"/").decode("ascii").split("/")
        return [unquote(part, errors="strict") for part in parts] if b"%" in raw else parts
    except UnicodeError:
        raise FhirError(Kind.VALUE, "the URL must be percent-encoded UTF-8") from None


async def _body(headers: dict[bytes, bytes], receive: Receive, gate: Gate) -> bytes:
    """The whole body.

    Raises 413 as soon as it is known to be too long, 415 for one that is compressed, 503 while too many large ones are
    read.
    """
    encoding = headers.get(b"content-encoding", b"")
    if encoding.strip().lower() not in (b"", b"identity"):
        raise FhirError(
            Kind.MEDIA_TYPE,
            f"Content-Encoding {encoding[:40].decode('latin-1')!a} is not read; send the body as it is",
            headers=(("Accept-Encoding", "identity"), ("Connection", "close")),
        )
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > MAX_BODY:
        raise _too_long()
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > MAX_BODY:
            raise _too_long()
        return body
    parts, size, counted = [body], len(body), 0
    try:
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise FhirError(Kind.INVALID, "the body was cut off")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise _too_long()
            if size - counted > _LARGE:
                gate.take(size - counted)
                counted = size
        return b"".join(parts)
    finally:
        gate.take(-counted)


async def _no_body() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def _too_long() -> FhirError:
    return FhirError(Kind.TOO_LONG, f"a body may have {MAX_BODY} bytes", headers=(("Connection", "close"),))


def _refusal(error: FhirError) -> Response:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers]
    issues = error.issues
    if len(issues) > 50:
        issues = (*issues[:50], Issue(issues[0].kind, f"and {len(issues) - 50} more", severity="information"))
    return Response(error.status, document.dumps(operation_outcome(issues)), headers)
