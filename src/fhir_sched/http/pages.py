"""The pages beside the FHIR API: /healthz, /readyz, /openapi.json, /docs. Written with Starlette: none is on a fast path."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fhir_sched.db.lanes import Lanes
from fhir_sched.settings import Settings


def pages(settings: Settings, lanes: Lanes) -> dict[str, ASGIApp]:
    """The pages by path."""

    async def healthz(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"status": "up"})(scope, receive, send)

    async def readyz(scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = JSONResponse(
            {"status": "ready"} if lanes.ready else {"status": "no database"}, 200 if lanes.ready else 503
        )
        await response(scope, receive, send)

    return {"/healthz": healthz, "/readyz": readyz}
