"""Structured logs: one JSON object a line on stderr, for our own lines and those of the libraries alike.

Laws: no line holds the text of an exception, a row's value, a query, a token or an id of a resource; a log that nobody
reads holds no request up, its lines are dropped and counted. Knows nothing of HTTP or of the database.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import orjson

OURS: Final = "fhir_sched"
# A write of this size to a pipe is never mixed with that of another process (POSIX: PIPE_BUF is 512 or more, 4,096 on
# Linux), and does not block when poll has called the pipe writable.
_PIECE: Final = 4096
_FRAMES: Final = 30


class Sink:
    """Where the lines go: a file descriptor that is written without ever waiting for it.

    Inside an event loop lines are gathered and written once a turn; `dropped` counts what found no room.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lines: list[bytes] = []
        self.dropped = 0

    def gather(self, loop: asyncio.AbstractEventLoop, line: bytes) -> None:
        """Write the line, which ends with a newline, at the end of this turn of the loop."""
        if not self._lines:
            loop.call_soon(self.flush)
        self._lines.append(line)

    def write(self, line: bytes) -> None:
        """Write the line now, after those that were gathered."""
        self._lines.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what was gathered, whole lines in pieces that fit a pipe."""
        lines, self._lines = self._lines, []
        piece: list[bytes] = []
        size = 0
        for line in lines:
            if size + len(line) > _PIECE and piece:
                self._put(piece)
                piece, size = [], 0
            piece.append(line)
            size += len(line)
        if piece:
            self._put(piece)

    def _put(self, piece: list[bytes]) -> None:
        try:
            if self._poll.poll(0):
                os.write(self._descriptor, b"".join(piece))
                return
        except OSError:
            # nobody is at the other end any more
            pass
        self.dropped += len(piece)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, and of an exception its types and places alone."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without its newline."""
        said = record.getMessage()
        if not record.name.startswith(OURS):
            # what asyncio adds on further lines is the repr of a task with its exception
            said = said.partition("\n")[0][:300]
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": said,
        }
        line.update(getattr(record, "fields", None) or {})
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _types(record.exc_info[1])
            line["stack"] = _places(record.exc_info[2])
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()


class JsonHandler(logging.Handler):
    """Gives records to the sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a record that cannot be formatted is one more line, not a failure."""
        try:
            line = self.format(record).encode()
        except Exception as error:  # noqa: BLE001 - logging must not fail what it tells about
            line = orjson.dumps(
                {"level": "error", "logger": record.name, "message": f"no line: {type(error).__name__}"}
            )
        self._sink.write(line + b"\n")


def configure(level: str) -> Sink:
    """Send everything that this process logs from `level` up to stderr as JSON; the sink that does so.

    uvicorn must be told to leave logging alone (`log_config=None`).
    """
    sink = Sink()
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(JsonHandler(sink))
    root.setLevel(level.upper())
    # Its remarks at INFO are about its own start and end; the access lines are ours.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
        other.setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
    return sink


def _types(error: BaseException) -> list[str]:
    """The exception's type and those that led to it, outermost first; their texts may hold values and stay out."""
    found: list[str] = []
    current: BaseException | None = error
    while current is not None and len(found) < _FRAMES:
        found.append(f"{type(current).__module__}.{type(current).__qualname__}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def _places(trace: TracebackType | None) -> list[str]:
    """Where it went through, outermost first."""
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
