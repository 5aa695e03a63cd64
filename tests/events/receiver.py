"""A real web server that takes webhooks: it keeps what it got, and answers what it is told to answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """One request: its headers by lower-case name, its body as it came and as JSON; `status` is how it was answered."""

    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def event(self) -> dict[str, Any]:
        """The CloudEvent."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that is killed in the middle is what these tests are about."""


class Receiver:
    """`answer` gives status and headers for an event; `got` are all requests, `taken` the events answered with 2xx."""

    def __init__(self) -> None:
        self.got: list[Request] = []
        self.answer: Callable[[dict[str, Any]], tuple[int, dict[str, str]]] = lambda _: (204, {})
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """Where it takes events."""
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    @property
    def taken(self) -> list[dict[str, Any]]:
        """The events that it said it has, in the order of their arrival, repeats and all."""
        return [request.event for request in self.got if request.status < 300]

    def of(self, subject: str) -> list[str]:
        """The types of the events about one resource that it has taken, in order."""
        return [event["type"] for event in self.taken if event["subject"] == subject]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                length = int(headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    self.close_connection = True
                    return
                status, more = outer.answer(json.loads(body))
                outer.got.append(Request(headers, body, status))
                self.send_response(status)
                for name, value in {"Content-Length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Silence."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
