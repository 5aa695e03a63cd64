"""`file:///path` appends events to a file, `stdout:` prints them, one line each: for trying it and for piping it on.

Law: an event counts as taken when its line is on disk (`file:`) or handed to the system (`stdout:`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fhir_sched.events.sink import Failure, Message, SinkError, Unavailable
from fhir_sched.events.sinks.options import Options


class FileSink:
    """A sink."""

    batch = 500
    in_order = True

    def __init__(self, name: str, url: str, options: Options) -> None:
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError("must name a path, such as file:///var/log/events.jsonl")
        self.name = name
        self._path = Path(unquote(parts.path))

    async def open(self) -> None:
        """See that the file can be written. Raises SinkError."""
        try:
            await asyncio.to_thread(self._append, b"")
        except OSError as error:
            raise SinkError(f"{self.name}: {error.strerror}") from None

    async def send(self, messages: Sequence[Message]) -> Sequence[Failure | None]:
        """All lines with one write."""
        lines = b"".join(message.body + b"\n" for message in messages)
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            return [Unavailable(error.strerror or "the file cannot be written")] * len(messages)
        return [None] * len(messages)

    def _append(self, lines: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            size = os.fstat(descriptor).st_size
            if lines and size and os.pread(descriptor, 1, size - 1) != b"\n":
                # a full disk once left half a line
                lines = b"\n" + lines
            _write(descriptor, lines)
            if lines:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    async def close(self) -> None:
        """Nothing is held."""


class OutputSink:
    """A sink."""

    batch = 500
    in_order = True

    def __init__(self, name: str, url: str, options: Options) -> None:
        self.name = name
        self._descriptor = 1

    async def open(self) -> None:
        """What was printed before comes first."""
        sys.stdout.flush()

    async def send(self, messages: Sequence[Message]) -> Sequence[Failure | None]:
        """All lines with one write."""
        try:
            await asyncio.to_thread(_write, self._descriptor, b"".join(message.body + b"\n" for message in messages))
        except OSError as error:
            return [Unavailable(error.strerror or "nobody reads")] * len(messages)
        return [None] * len(messages)

    async def close(self) -> None:
        """Nothing is held."""


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
