"""A request without body and its answer on the wire, without ASGI's messages, which cost more than a read does.

Stands in for uvicorn's cycle of a request, as far as its protocol asks for one. RFC 9112 (chunks, persistence).
Knows no request and no route.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uvicorn.protocols.http.flow_control import FlowControl

    from fhir_sched.http.messages import Pieces

log = logging.getLogger("fhir_sched.http")

CLOSE: Final = b"connection: close\r\n"
_WORTH_A_COPY: Final = 4096


class _Nothing:
    def set(self) -> None:
        """Nobody waits for it."""


class Exchange:
    """One request in progress on a connection; `finished` is called once its answer is on the way."""

    __slots__ = (
        "_finished", "_flow", "_transport", "body", "disconnected", "keep_alive", "more_body", "response_complete",
        "response_started",
    )  # fmt: skip
    message_event = _Nothing()

    def __init__(
        self, transport: asyncio.Transport, flow: FlowControl, finished: Callable[[], None], *, keep_alive: bool
    ) -> None:
        self._transport, self._flow, self._finished = transport, flow, finished
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = self.response_started = self.response_complete = self.disconnected = False

    async def send(
        self, head: bytes, body: bytes | Pieces, headers: Sequence[tuple[bytes, bytes]], *, last: bool
    ) -> None:
        """Write an answer: status line and headers, further headers, the body; `last` says that the head closes the
        connection already."""
        own = b"".join([b"%b: %b\r\n" % header for header in headers])
        ends = last or not self.keep_alive
        head = b"%b%b%b\r\n" % (head, own, CLOSE if ends and not last else b"")
        if not await (self._whole(head, body) if isinstance(body, bytes) else self._stream(head, body)):
            return
        if ends:
            self._transport.close()
        self._finished()

    async def _whole(self, head: bytes, body: bytes) -> bool:
        """Whether it went out."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        self.response_complete = True
        if self.disconnected:
            return False
        if len(body) < _WORTH_A_COPY:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return True

    async def _stream(self, head: bytes, pieces: Pieces) -> bool:
        """Write the pieces as chunks, each when the client has taken those before it; break off where one fails."""
        self.response_started = True
        self._transport.write(head)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if self.disconnected:
                        return False
                    if piece:
                        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    if self._flow.write_paused:
                        await self._flow.drain()
        except Exception:
            # Without its last chunk the client knows that the answer is not whole.
            log.exception("an answer broke off")
            self._transport.abort()
            return False
        self.response_complete = True
        if self.disconnected:
            return False
        self._transport.write(b"0\r\n\r\n")
        return True
