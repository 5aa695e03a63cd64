"""The application with OpenTelemetry traces: a span for each request, a child for each trip to the database.

Law: a span has the route's name, method, status, tenant and request id, as the log has them; never a URL, an id of a
resource, a query or an SQL argument; nothing of patients. What the caller's `traceparent` says is its parent (W3C Trace
Context), its baggage is not read. Imported only where OTEL variables ask for traces, so that without them nothing is
there that could cost. Knows no resource.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fhir_sched import __version__
from fhir_sched.db.fragment import Fragment
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.replica import Replica
from fhir_sched.db.rows import Rows
from fhir_sched.db.transaction import Transaction
from fhir_sched.http import naming
from fhir_sched.http.app import App, Scope
from fhir_sched.http.messages import Response
from fhir_sched.http.sending import Receive, Send
from fhir_sched.logs import Sink
from fhir_sched.settings import Settings

FLUSH_S: Final = 2.0
"""How long the end of the server waits for a collector to take the last spans."""
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_TRACEPARENT: Final = ("traceparent", "tracestate")
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def create_app(settings: Settings, sink: Sink | None = None) -> App:
    """As `app.create_app`, with traces that go where the OTEL variables say."""
    if settings.database_url is None:
        raise ValueError("the application needs DATABASE_URL; serve gives that of the embedded PostgreSQL")
    told = Resource({SERVICE_NAME: "fhir-sched", SERVICE_VERSION: __version__})
    # It is ended with the lifespan, in a bounded time, and not by a hook at exit that waits for half a minute.
    provider = TracerProvider(resource=told.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("fhir_sched", __version__)
    lanes = TracedLanes(settings.database_url, tracer)
    replica = TracedReplica(settings.replica_url, lanes) if settings.replica_url else None
    return TracedApp(settings, lanes, provider, tracer, sink, replica)


class TracedApp(App):
    """Spans around the answers. Probes and what is refused for want of a place have none."""

    def __init__(
        self,
        settings: Settings,
        lanes: TracedLanes,
        provider: TracerProvider,
        tracer: Tracer,
        sink: Sink | None,
        replica: Replica | None = None,
    ) -> None:
        super().__init__(settings, lanes, sink, replica)
        self._provider, self._tracer = provider, tracer

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super()._lifespan(scope, receive, send)
        finally:
            flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
            flushing.start()
            await asyncio.to_thread(flushing.join, FLUSH_S)

    async def _respond(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, request_id: bytes
    ) -> Response:
        if scope["path"] in _PROBES:
            return await super()._respond(scope, headers, receive, request_id)
        place = naming.placed(scope["raw_path"])
        method = naming.method(scope["method"])
        said = {
            "http.request.method": method,
            "http.route": place.route,
            "fhir_sched.tenant": place.tenant,
            "fhir_sched.request_id": request_id.decode("ascii"),
        }
        with self._tracer.start_as_current_span(
            f"{method} {place.route}",
            _PROPAGATOR.extract(_carried(headers)),
            SpanKind.SERVER,
            {name: value for name, value in said.items() if value},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            response = await super()._respond(scope, headers, receive, request_id)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 500:
                span.set_status(StatusCode.ERROR)
            return response


class TracedLanes(Lanes):
    """Spans around what a request asks of the database, the wait for a connection included."""

    def __init__(self, conninfo: str, tracer: Tracer) -> None:
        super().__init__(conninfo)
        self._tracer = tracer

    async def read(self, tenant: str, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """See Lanes."""
        if slow:  # it goes the way of a write, which has its span
            return await super().read(tenant, *fragments, slow=True)
        with self.trip("read", len(fragments)):
            return await super().read(tenant, *fragments)

    async def write(self, tenant: str, *fragments: Fragment, caller: str = "") -> tuple[Rows, ...]:
        """See Lanes."""
        with self.trip("write", len(fragments)):
            return await super().write(tenant, *fragments, caller=caller)

    @asynccontextmanager
    async def transaction(self, tenant: str, caller: str = "") -> AsyncIterator[Transaction]:
        """See Lanes; one span for the whole, however many trips it makes."""
        with self.trip("transaction"):
            async with super().transaction(tenant, caller) as transaction:
                yield transaction

    @contextmanager
    def trip(self, kind: str, statements: int = 0) -> Iterator[None]:
        """A span, where there is one of a request around it; what the server does by itself has none."""
        if not trace.get_current_span().get_span_context().is_valid:
            yield
            return
        said: dict[str, str | int] = {"db.system.name": "postgresql"}
        if statements:
            said["fhir_sched.statements"] = statements
        with self._tracer.start_as_current_span(
            f"postgresql {kind}",
            kind=SpanKind.CLIENT,
            attributes=said,
            record_exception=False,
            set_status_on_exception=False,  # it would tell the exception's text
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", type(error).__name__)
                raise


class TracedReplica(Replica):
    """A span around each read that may go to the replica; what the primary is asked for it is a span within."""

    def __init__(self, conninfo: str, lanes: TracedLanes) -> None:
        super().__init__(conninfo, lanes)
        self._trip = lanes.trip

    async def read(self, tenant: str, *fragments: Fragment, slow: bool = False) -> tuple[Rows, ...]:
        """See Replica."""
        with self._trip("replica", len(fragments)):
            return await super().read(tenant, *fragments, slow=slow)


def _carried(headers: dict[bytes, bytes]) -> dict[str, str]:
    """The headers of W3C Trace Context, where they are there."""
    found = ((name, headers.get(name.encode())) for name in _TRACEPARENT)
    return {name: value.decode("latin-1") for name, value in found if value is not None}
