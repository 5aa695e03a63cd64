"""One HTTP/1.1 connection that knows what became of a request: answered, never sent, or nobody can say.

Law: a request of which not a byte went out was not sent; one that went out in part or whole and got no whole answer is
unknown. Knows nothing of FHIR.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 40.0
"""Longer than every limit of the server: who gives up earlier does not know what still happens."""


class NotSentError(Exception):
    """Nobody listens: nothing of the request went out."""


class NoAnswerError(Exception):
    """The request went out and no whole answer came back."""


@dataclass(frozen=True)
class Reply:
    """Status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON, {} where there is none."""
        found: dict[str, Any] = json.loads(self.body) if self.body else {}
        return found


class Wire:
    """A connection that is opened when it is needed and kept until something is wrong with it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """The answer; `_` in a header's name stands for `-`. Raises NotSentError or NoAnswerError."""
        reader, writer = await self._opened()
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(request(method, path, body, **headers))
                reply = await _reply(reader)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            self.cut()
            raise NoAnswerError(repr(error)) from error
        except asyncio.CancelledError:
            self.cut()
            raise
        if reply.headers.get("connection", "").lower() == "close":
            self.cut()
        return reply

    async def leave(self, content: bytes, after_s: float) -> None:
        """Write the bytes and cut the connection some time later, whatever the server is about then."""
        _, writer = await self._opened()
        writer.write(content)
        await asyncio.sleep(after_s)
        self.cut()

    def cut(self) -> None:
        """End the connection at once, with a reset where something is still on its way."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof() or self._writer.is_closing():
            self.cut()
            try:
                self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=2**22)
            except OSError as error:
                raise NotSentError(repr(error)) from error
        return self._reader, self._writer


def request(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """The bytes of a request with a JSON body."""
    content = b"" if body is None else json.dumps(body).encode()
    given = {"Host": "clinic.example", "Content-Length": str(len(content))}
    if body is not None:
        given["Content-Type"] = "application/fhir+json"
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


async def _reply(reader: asyncio.StreamReader) -> Reply:
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    status = int(start.split(" ")[1])
    body = await reader.readexactly(int(headers.get("content-length", "0"))) if status not in (204, 304) else b""
    return Reply(status, headers, body)
