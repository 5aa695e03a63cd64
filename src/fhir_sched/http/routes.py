"""URL and method -> interaction. One table for the three resources. R4 3.1.0 (the summary of URLs).

Parsing and refusing are done before an interaction begins. Knows nothing of SQL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from fhir_sched import capability, document
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.work import Alone
from fhir_sched.definition import Resource
from fhir_sched.http import negotiate, preconditions
from fhir_sched.http.messages import Request, Response, decode_form
from fhir_sched.interactions.context import Answer, Context, etag
from fhir_sched.interactions.create import create
from fhir_sched.interactions.delete import delete
from fhir_sched.interactions.read import read
from fhir_sched.interactions.search import search
from fhir_sched.interactions.update import update
from fhir_sched.outcome import FhirError, Issue, Kind, operation_outcome
from fhir_sched.r4.structure import TYPES
from fhir_sched.resources import RESOURCES
from fhir_sched.search.parse import Parser

ANONYMOUS = "00000000-0000-0000-0000-000000000000"
"""The subject of a change that nobody signed (AUTH=open)."""


class Routes:
    """The FHIR API of one server: `handle` answers every request below `/fhir/`."""

    def __init__(self, lanes: Lanes, *, strict: bool) -> None:
        self.lanes, self.strict = lanes, strict

    async def handle(self, request: Request) -> Response:
        """The answer, or FhirError."""
        content_type = negotiate.response_type(request)
        tenant = _tenant(request.segments[0])
        context = Context(tenant, f"{request.root}/fhir/{tenant}", Alone(self.lanes, tenant), ANONYMOUS, "staff")
        response = await self._dispatch(context, request, request.segments[1:])
        response.content_type = content_type
        return response

    async def _dispatch(self, context: Context, request: Request, path: list[str]) -> Response:
        match path:
            case [name] if name in RESOURCES:
                return await self._type(context, request, RESOURCES[name])
            case [name, "_search"] if name in RESOURCES:
                return await _by_method(
                    request, {"POST": lambda: self._posted_search(context, request, RESOURCES[name])}
                )
            case [name, fhir_id] if name in RESOURCES:
                return await self._instance(context, request, RESOURCES[name], fhir_id)
            case ["metadata"]:
                return await _by_method(request, {"GET": lambda: _metadata(context)})
        raise _no_route(path)

    async def _type(self, context: Context, request: Request, resource: Resource) -> Response:
        return await _by_method(
            request,
            {
                "GET": lambda: self._search(context, request, resource, request.parameters),
                "POST": lambda: self._create(context, request, resource),
            },
        )

    async def _instance(self, context: Context, request: Request, resource: Resource, fhir_id: str) -> Response:
        return await _by_method(
            request,
            {
                "GET": lambda: _read(context, resource, fhir_id),
                "PUT": lambda: self._update(context, request, resource, fhir_id),
                "DELETE": lambda: _delete(context, request, resource, fhir_id),
            },
        )

    async def _search(
        self, context: Context, request: Request, resource: Resource, pairs: list[tuple[str, str]]
    ) -> Response:
        handling = preconditions.preference(request.header(b"prefer"), "handling")
        strict = handling == "strict" or (self.strict and handling != "lenient")
        query = Parser(RESOURCES, context.base, context.tenant).query(resource, pairs, strict=strict)
        return _answer(await search(context, query))

    async def _posted_search(self, context: Context, request: Request, resource: Resource) -> Response:
        negotiate.require_form(request)
        return await self._search(context, request, resource, request.parameters + decode_form(request.body))

    async def _create(self, context: Context, request: Request, resource: Resource) -> Response:
        negotiate.require_json(request)
        answer = await create(context, resource, document.parse(request.body))
        return _written(answer, request)

    async def _update(self, context: Context, request: Request, resource: Resource, fhir_id: str) -> Response:
        negotiate.require_json(request)
        condition = preconditions.if_match(request.header(b"if-match"))
        answer = await update(context, resource, fhir_id, document.parse(request.body), condition)
        return _written(answer, request)


async def _by_method(request: Request, actions: dict[str, Callable[[], Awaitable[Response]]]) -> Response:
    action = actions.get("GET" if request.method == "HEAD" else request.method)
    if action is not None:
        return await action()
    allowed = ", ".join([*actions, *(["HEAD"] if "GET" in actions else [])])
    raise FhirError(
        Kind.METHOD, f"{request.method} is not possible here; this URL takes {allowed}", headers=(("Allow", allowed),)
    )


async def _read(context: Context, resource: Resource, fhir_id: str) -> Response:
    return _answer(await read(context, resource, fhir_id))


async def _delete(context: Context, request: Request, resource: Resource, fhir_id: str) -> Response:
    condition = preconditions.if_match(request.header(b"if-match"))
    return _answer(await delete(context, resource, fhir_id, condition))


async def _metadata(context: Context) -> Response:
    return Response(200, document.dumps(capability.statement(context.base)))


def _answer(answer: Answer) -> Response:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
    if answer.version is not None:
        headers.append((b"etag", etag(answer.version).encode()))
    if answer.modified is not None:
        headers.append((b"last-modified", preconditions.http_date(answer.modified)))
    if answer.location:
        headers.append((b"location", answer.location.encode("latin-1")))
    return Response(answer.status, answer.body, headers)


def _written(answer: Answer, request: Request) -> Response:
    """A create or update, with the body that `Prefer: return=` asks for (R4 3.1.0.1.8)."""
    response = _answer(answer)
    wanted = preconditions.preference(request.header(b"prefer"), "return").lower()
    if wanted == "minimal":
        response.body = b""
    elif wanted == "operationoutcome":
        said = "created" if answer.status == 201 else "updated"
        issue = Issue(Kind.INFORMATIONAL, f"{said}: {answer.location}", severity="information")
        response.body = document.dumps(operation_outcome([issue]))
    return response


def _tenant(text: str) -> str:
    try:
        if len(text) == 36:
            return str(UUID(text))
    except ValueError:
        pass
    raise FhirError(Kind.NOT_FOUND, "the URL needs a tenant: /fhir/<tenant's UUID>/…")


def _no_route(path: list[str]) -> FhirError:
    served = ", ".join(RESOURCES)
    if path and path[0] in TYPES and path[0] not in RESOURCES:
        return FhirError(Kind.NO_SUCH_ROUTE, f"{path[0]} is not served here; served are {served}")
    return FhirError(Kind.NO_SUCH_ROUTE, f"there is nothing at /{'/'.join(path)[:200]}; served are metadata, {served}")
