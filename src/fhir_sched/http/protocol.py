"""uvicorn's HTTP/1.1 protocol, with bounds on what a connection may take and an OperationOutcome for each refusal.

Laws: no answer of the server is plain text; the head of a request takes bounded memory; a client that is slow to send
or to read holds nothing but its own socket, for a bounded time; a request that would be refused for want of room is
refused here, before it costs anything. RFC 9112, RFC 9110 15.5.9 (408), R4 2.28. Knows no route.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fhir_sched import document
from fhir_sched.http.admission import RETRY_AFTER_S, Gate, overloaded
from fhir_sched.http.exchange import CLOSE, Exchange
from fhir_sched.http.messages import by_name
from fhir_sched.http.naming import Place, placed
from fhir_sched.http.observing import Observer
from fhir_sched.outcome import Issue, Kind, operation_outcome

Direct: TypeAlias = "Callable[[dict[str, Any], dict[bytes, bytes]], Awaitable[tuple[bytes, bytes | Pieces, bool]]]"

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from fhir_sched.http.messages import Pieces

log = logging.getLogger("fhir_sched.http")

MAX_HEAD: Final = 64 * 1024
"""Bytes that the request line and the headers of one request may have together."""
MAX_HEADERS: Final = 100
HEAD_S: Final = 10.0
"""How long a request's head may take to arrive, and a new connection to begin one."""
BODY_S: Final = 30.0
"""How long a request's body may take to arrive, and an answer to be read."""
MAX_CONNECTIONS: Final = 4096
SHED_PAUSE_S: Final = 0.001
"""Refused connections are read again one by one, at this distance, so that refusing leaves time for answering."""
_LOOK_S: Final = 5.0
_LAST_S: Final = 1.0

_ANSWER: Final = (
    b"HTTP/1.1 %d %b\r\ncontent-type: application/fhir+json; charset=utf-8\r\ncontent-length: %d\r\n"
    b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: %b\r\n%b\r\n%b"
)
_BUSY: Final = document.dumps(operation_outcome(overloaded().issues))
_RETRY: Final = b"retry-after: %d\r\n" % RETRY_AFTER_S
_SMALL: Final = 64 * 1024
_WITH_BODY: Final = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade"))


class Protocol(HttpToolsProtocol):
    """One connection. `_unread` counts the bytes of a head that is not complete yet.

    `_since` is when the client began to owe us bytes, by the loop's clock, and `_patience_s` how long it may; while it
    owes nothing `_since` is infinite.
    """

    _unread = 0
    _in_head = True
    _ended = False
    _refused = False
    _unsent = 0
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gate: Gate | None = app_state.get("gate")
        self._observer: Observer | None = app_state.get("observer")
        self._direct: Direct | None = app_state.get("direct")
        self._since = self.loop.time()
        self._patience_s = HEAD_S

    # connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(_LOOK_S, self._look)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(overloaded().issues[0], b"Service Unavailable", _RETRY)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Once in a while: end the connection of a client that is too slow."""
        now = self.loop.time()
        self._timer = self.loop.call_later(_LOOK_S, self._look)
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent == self._unsent:
            if now - self._since > BODY_S:
                self.transport.abort()
            return
        if unsent:
            # it reads; from now on it may pause again
            self._unsent, self._since, self._patience_s = unsent, now, BODY_S
        elif self._unsent:
            self._unsent = 0
            self._since = now if self._unread or not self._in_head else float("inf")
        elif now - self._since > self._patience_s and not self.transport.is_closing():
            if self._in_head and not self._unread:
                self.transport.close()
            else:
                self._refuse(Issue(Kind.SLOW, "The request took too long to arrive."), b"Request Timeout")

    def shutdown(self) -> None:
        """The server ends: what was read is answered, what is still arriving has a moment for it."""
        super().shutdown()
        if not self._in_head:
            self.loop.call_later(_LAST_S, self._cut_off)

    def _cut_off(self) -> None:
        if not self._in_head and not self.transport.is_closing():
            self._refuse(Issue(Kind.SLOW, "The server is shutting down."), b"Request Timeout")

    # requests

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._ended = False
        super().data_received(data)
        # Bytes that end a message are no head, and what follows them in the same piece is bounded by the piece.
        if self._in_head and not self._ended:
            if not self._unread:
                self._since, self._patience_s = self.loop.time(), HEAD_S
            self._unread += len(data)
            if self._unread > MAX_HEAD and not self.transport.is_closing():
                self._refuse(
                    Issue(Kind.HEADERS_TOO_LONG, f"A request line and headers may have {MAX_HEAD} bytes together."),
                    b"Request Header Fields Too Large",
                )

    def on_headers_complete(self) -> None:
        self._in_head, self._unread = False, 0
        if self._refused:
            return
        if len(self.headers) > MAX_HEADERS:
            text = f"A request may have {MAX_HEADERS} headers."
            self._refuse(Issue(Kind.HEADERS_TOO_LONG, text), b"Request Header Fields Too Large")
            return
        gate = self._gate
        if gate is not None and gate.waiting and gate.full(self._place().tenant) and self._may_shed():
            self._shed(gate)
            return
        self._since, self._patience_s = self.loop.time(), BODY_S
        scope = self._bodyless()
        if scope is None or self._direct is None:
            self._as_usual()
        else:
            self._begin(self._direct, scope)

    # requests without body, answered without ASGI's messages in between

    def on_message_begin(self) -> None:
        """Begin a request; what ASGI needs of it is made when it turns out to be needed."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def _as_usual(self) -> None:
        """Go on as uvicorn does, by ASGI."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def _bodyless(self) -> dict[str, Any] | None:
        """What the application asks of a GET or HEAD that has no body; None for any other request."""
        method = self.parser.get_method()
        if self._answering() or method not in (b"GET", b"HEAD") or self.url[:1] != b"/":
            return None
        if self.parser.get_http_version() != "1.1" or not self.url.isascii() or b"#" in self.url:
            return None
        if not _WITH_BODY.isdisjoint([name for name, _ in self.headers]):
            return None
        path, _, query = self.url.partition(b"?")
        return {
            "method": method.decode("ascii"),
            "path": path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
        }

    def _begin(self, direct: Direct, scope: dict[str, Any]) -> None:
        keep = self.parser.should_keep_alive()
        exchange = Exchange(self.transport, self.flow, self.on_response_complete, keep_alive=keep)
        self.cycle = exchange  # type: ignore[assignment]
        task = self.loop.create_task(self._answer(direct, exchange, scope, by_name(self.headers)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(
        self, direct: Direct, exchange: Exchange, scope: dict[str, Any], headers: dict[bytes, bytes]
    ) -> None:
        head, body, last = await direct(scope, headers)
        await exchange.send(head, body, self.server_state.default_headers, last=last)

    def on_body(self, body: bytes) -> None:
        if not self._refused and not self._shedding:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = self._ended = True
        self._since = float("inf")
        if self._shedding:
            self._shedding = False
            self._since, self._patience_s = self.loop.time(), float(self.timeout_keep_alive)
        elif not self._refused:
            super().on_message_complete()

    # refusals

    _shedding = False

    def _may_shed(self) -> bool:
        """Whether the answer may go out at once: no other is due first, and a web page need not be told by CORS."""
        return not self._answering() and not any(name == b"origin" for name, _ in self.headers)

    def _place(self) -> Place:
        return placed(self.url.partition(b"?")[0])

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _shed(self, gate: Gate) -> None:
        """Refuse a request whose head has come, and don't read the connection again before others had their turn."""
        started = time.perf_counter()
        gate.refused += 1
        headers = dict(self.headers)
        request_id = b""
        if self._observer is not None:
            request_id = self._observer.request_id(headers.get(b"x-request-id"))
        length = headers.get(b"content-length", b"0")
        keep = self.parser.should_keep_alive() and b"transfer-encoding" not in headers
        keep = keep and length.isdigit() and int(length) <= _SMALL and not gate.draining
        body = b"" if self.parser.get_method() == b"HEAD" else _BUSY
        more = _RETRY if keep else _RETRY + CLOSE
        self.transport.write(_ANSWER % (503, b"Service Unavailable", len(_BUSY), request_id, more, body))
        if self._observer is not None:
            method = self.parser.get_method().decode("ascii")
            self._observer.finished(request_id, self._place(), method, 503, started)
        if not keep:
            self._refused = True
            self.transport.close()
            return
        self._shedding = True
        self.flow.pause_reading()
        gate.read_later = max(gate.read_later, self.loop.time()) + SHED_PAUSE_S
        self.loop.call_at(gate.read_later, self.flow.resume_reading)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser could not read."""
        if not self._refused:
            self._refuse(Issue(Kind.STRUCTURE, "The request is not valid HTTP/1.1."), b"Bad Request")

    def _refuse(self, issue: Issue, reason: bytes, more: bytes = b"") -> None:
        """Say why and end the connection."""
        self._refused = True
        body = document.dumps(operation_outcome([issue]))
        request_id = b""
        if self._observer is not None:
            request_id = self._observer.request_id(None)
            self._observer.finished(request_id, placed(b""), "", issue.kind.status, time.perf_counter())
        if not self._answering() or not self.cycle.response_started:
            self.transport.write(_ANSWER % (issue.kind.status, reason, len(body), request_id, more + CLOSE, body))
        self.transport.close()
