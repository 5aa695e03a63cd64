"""uvicorn's HTTP/1.1 protocol, with an OperationOutcome where the bytes are no HTTP at all. RFC 9112, R4 2.28.

Law: no answer of the server is plain text, and the head of a request takes bounded memory. Knows no route.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fhir_sched import document
from fhir_sched.outcome import Issue, Kind, operation_outcome

MAX_HEAD = 64 * 1024
"""Bytes that the request line and the headers of one request may have together."""

_ANSWER = (
    b"HTTP/1.1 %d %b\r\ncontent-type: application/fhir+json; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b"
)


class Protocol(HttpToolsProtocol):
    """One connection. `_unread` counts the bytes of a head that is not complete yet."""

    _unread = 0
    _in_head = True
    _ended = False

    def data_received(self, data: bytes) -> None:
        self._ended = False
        super().data_received(data)
        # Bytes that end a message are no head, and what follows them in the same piece is bounded by the piece.
        if self._in_head and not self._ended:
            self._unread += len(data)
            if self._unread > MAX_HEAD and not self.transport.is_closing():
                self._refuse(
                    Issue(Kind.HEADERS_TOO_LONG, f"A request line and headers may have {MAX_HEAD} bytes together."),
                    b"Request Header Fields Too Large",
                )

    def on_headers_complete(self) -> None:
        self._in_head, self._unread = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = self._ended = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser could not read."""
        self._refuse(Issue(Kind.STRUCTURE, "The request is not valid HTTP/1.1."), b"Bad Request")

    def _refuse(self, issue: Issue, reason: bytes) -> None:
        body = document.dumps(operation_outcome([issue]))
        self.transport.write(_ANSWER % (issue.kind.status, reason, len(body), body))
        self.transport.close()
