"""What is told of each request: its line in the log and its place in the metrics.

Law: a line has the route's name, never the URL; nothing of a query, header (but a request id), body or answer comes
here. R4 http.html 3.1.0.1.4 asks for the request id to be sent back.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from datetime import UTC, datetime
from itertools import count
from typing import Final

import orjson

from fhir_sched.http import naming
from fhir_sched.http.metrics import Metrics
from fhir_sched.http.naming import Place
from fhir_sched.logs import Sink

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9\-._~]{1,64}")


class Observer:
    """One for each process. Access lines are written when the logger `fhir_sched.access` takes INFO."""

    def __init__(self, metrics: Metrics, sink: Sink | None) -> None:
        self.metrics = metrics
        self._sink = sink if logging.getLogger("fhir_sched.access").isEnabledFor(logging.INFO) else None
        self._prefix = secrets.token_hex(8).encode()
        self._numbers = count(1)

    def request_id(self, given: bytes | None) -> bytes:
        """The client's own id when it is a sane one, else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._numbers))

    def finished(self, request_id: bytes, place: Place, method: str, status: int, started: float) -> None:
        """One request was answered; `started` is its begin by `time.perf_counter`."""
        seconds = time.perf_counter() - started
        method = naming.method(method)
        self.metrics.observe(place.route, method, status, seconds)
        sink = self._sink
        if sink is not None:
            line = orjson.dumps(
                {
                    "time": datetime.now(UTC),
                    "level": "info",
                    "logger": "fhir_sched.access",
                    "request_id": request_id.decode("ascii"),
                    "tenant": place.tenant,
                    "route": place.route,
                    "method": method,
                    "status": status,
                    "duration_ms": round(seconds * 1000, 3),
                },
                option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE,
            )
            sink.gather(asyncio.get_running_loop(), line)
