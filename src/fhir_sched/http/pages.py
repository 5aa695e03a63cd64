"""The pages beside the FHIR API: /, /healthz, /readyz, /metrics, /openapi.json, /docs. None is on a fast path.

They take GET and HEAD; what goes wrong is an OperationOutcome here too. Knows no resource.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final

from fhir_sched import document, openapi
from fhir_sched.db import doctor
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.http import html
from fhir_sched.http.admission import Gate
from fhir_sched.http.messages import Request, Response, only_get
from fhir_sched.http.metrics import Metrics
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.settings import Settings

Page = Callable[[Request], Awaitable[Response]]

_JSON: Final = b"application/json"
_PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_FRESH_S: Final = 1.0
"""How long an answer about the database is good: however often /readyz is asked, the database is asked this often."""


def pages(settings: Settings, lanes: Lanes, gate: Gate, metrics: Metrics) -> dict[str, Page]:
    """The pages by path."""
    readiness = _Readiness(lanes, gate)

    async def healthz(request: Request) -> Response:
        return Response(200, b'{"status":"up"}', content_type=_JSON)

    async def readyz(request: Request) -> Response:
        reasons = await readiness.reasons()
        if reasons:
            raise FhirError.of(Issue(Kind.UNAVAILABLE, f"not ready: {reason}") for reason in reasons)
        return Response(200, b'{"status":"ready"}', content_type=_JSON)

    async def exposition(request: Request) -> Response:
        return Response(200, metrics.exposition(), content_type=_PROMETHEUS)

    async def start(request: Request) -> Response:
        return html.page("fhir-sched", html.start(f"{request.root}/fhir/{settings.demo_tenant}"))

    served = {
        "/": start,
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": exposition,
        "/openapi.json": _openapi,
        "/docs": _docs,
    }
    return {path: _reading(page) for path, page in served.items()}


def _reading(page: Page) -> Page:
    """The page for GET and HEAD only, by nobody kept."""

    async def answer(request: Request) -> Response:
        response = only_get(request) or await page(request)
        response.headers.append((b"cache-control", b"no-cache"))
        return response

    return answer


async def _openapi(request: Request) -> Response:
    return Response(200, _document(), content_type=_JSON)


async def _docs(request: Request) -> Response:
    return html.page("fhir-sched API", _reference())


@cache
def _document() -> bytes:
    return document.dumps(openapi.document())


@cache
def _reference() -> str:
    return html.reference(openapi.document())


class _Readiness:
    """Whether requests should be sent here, asked of the database at most once a second."""

    def __init__(self, lanes: Lanes, gate: Gate) -> None:
        self._lanes, self._gate = lanes, gate
        self._until = 0.0
        self._reasons: list[str] = []

    async def reasons(self) -> list[str]:
        """What speaks against it, as sentences; empty when nothing does."""
        self._gate.probed = True
        if self._gate.draining:
            return ["the server is shutting down"]
        if not self._lanes.ready:
            return ["no connection to the database"]
        if time.monotonic() > self._until:
            self._reasons = await self._ask()
            self._until = time.monotonic() + _FRESH_S
        return self._reasons

    async def _ask(self) -> list[str]:
        try:
            (rows,) = await self._lanes.read(_NOBODY, Fragment(doctor.READY_SQL))
        except FhirError:
            return ["the database does not answer, or its migrations are not current"]
        (row,) = rows.all()
        return doctor.not_ready(tuple(None if value is None else value.decode() for value in row))
